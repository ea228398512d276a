// What happens on atoms: node updates, sources of messages and the readout, each with its backward pass.

#pragma once

#include "tensors.h"

namespace {

// ---- weights, in the order in which kernel.py writes them

struct Reader {
    const real* next;
    const real* take(std::int64_t n) {
        const real* here = next;
        next += n;
        return here;
    }
};

// F x F maps, one for each rank from vectors up, and their transposes.
struct Mix {
    const real *forward, *backward;
    explicit Mix(Reader& r) : forward(r.take(3 * F * F)), backward(r.take(3 * F * F)) {}

    void apply(const real* y, real* out) const { each_rank<false>(y, forward, out); }
    void pull_back(const real* gradient, real* out) const { each_rank<true>(gradient, backward, out); }

private:
    template <bool accumulate>
    static void each_rank(const real* y, const real* maps, real* out) {
        for (int rank = 0; rank < 3; ++rank) {
            const int begin = FIRST[rank];
            map<accumulate>(FIRST[rank + 1] - begin, y + begin * TF, maps + rank * F * F, out + begin * TF);
        }
    }
};

// Two dense layers from `in` to `out` components with SiLU between them.
template <int in, int out>
struct Perceptron {
    const real *w1, *w1t, *b1, *w2, *w2t, *b2;
    explicit Perceptron(Reader& r)
        : w1(r.take(in * F * F)), w1t(r.take(in * F * F)), b1(r.take(F)), w2(r.take(out * F * F)), w2t(r.take(out * F * F)),
          b2(r.take(out * F)) {}

    // `slope` is SiLU's derivative, which `pull_back` needs.
    void hidden(const real* x, real* activation, real* slope) const {
        for (int i = 0; i < TF; ++i) activation[i] = b1[i % F];
        for (int c = 0; c < in; ++c) map<true>(1, x + c * TF, w1 + c * F * F, activation);
        for (int i = 0; i < TF; i += VL) {
            const vec z = load(activation + i), s = sigmoid(z);
            store(activation + i, z * s);
            store(slope + i, s * (real(1) + z * (real(1) - s)));
        }
    }
    void output(const real* activation, real* y) const {
        for (int c = 0; c < out; ++c) {
            for (int i = 0; i < TF; ++i) y[c * TF + i] = b2[c * F + i % F];
            map<true>(1, activation, w2 + c * F * F, y + c * TF);
        }
    }
    // From the gradient by the output to that by the inputs; `scratch` holds one component.
    void pull_back(const real* gradient, const real* slope, real* scratch, real* inputs) const {
        map<false>(1, gradient, w2t, scratch);
        for (int c = 1; c < out; ++c) map<true>(1, gradient + c * TF, w2t + c * F * F, scratch);
        pull_back_hidden(slope, scratch, inputs);
    }
    void pull_back_hidden(const real* slope, real* scratch, real* inputs) const {
        for (int i = 0; i < TF; i += VL) store(scratch + i, load(scratch + i) * load(slope + i));
        for (int c = 0; c < in; ++c) map<false>(1, scratch, w1t + c * F * F, inputs + c * TF);
    }
};

constexpr int INVARIANTS = 7;  // of third order at most, see `Products`
constexpr int TERMS = 9;       // of an update, each with a gate: p (vector, matrix, rank 3), tv, ot, tt, oo, vv, ov

struct UpdateWeights {
    Mix q, p;
    Perceptron<1 + INVARIANTS, 2 + TERMS> gates;
    explicit UpdateWeights(Reader& r) : q(r), p(r), gates(r) {}
};

constexpr int FILTERS = 6;

struct MessageWeights {
    Perceptron<1, 3> source;
    const real* filter;  // [F / VL][K][FILTERS][VL]: four of harmonics, two of tensors that neighbours carry
    explicit MessageWeights(Reader& r) : source(r), filter(r.take(FILTERS * K * F)) {}
};

struct HeadWeights {
    Mix q;
    Perceptron<1 + INVARIANTS, 2> gates;
    Perceptron<1, 0> readout;
    const real *last, *bias;  // of the readout's second layer
    explicit HeadWeights(Reader& r) : q(r), gates(r), readout(r), last(r.take(F)), bias(r.take(VL)) {}
};

// ---- the steps on a tile

template <int n>
INLINE void load_components(const real* p, vec* out) {
    for (int c = 0; c < n; ++c) out[c] = load(p + c * TF);
}
template <int n>
INLINE void store_components(real* p, const vec* values) {
    for (int c = 0; c < n; ++c) store(p + c * TF, values[c]);
}

// What one thread works with.
struct alignas(64) Tile {
    real state[NODE * TF];                // x and y
    real input[(1 + INVARIANTS) * TF];    // x and invariants
    real mixed[NODE * TF];                // y damped; later gradients of it
    real q[(NODE - 1) * TF], p[(NODE - 1) * TF];
    real activation[TF], slope[TF], gates[(2 + TERMS) * TF], scratch[TF];
    real source_activation[TF], source_slope[TF], source_gates[3 * TF];
    real gradient[NODE * TF];             // by x and y
    real gates_[(2 + TERMS) * TF], p_[(NODE - 1) * TF], q_[(NODE - 1) * TF], input_[(1 + INVARIANTS) * TF];
    real own_[READ * TF];                 // gradient by what neighbours read
};

// tile.gates from the scalars of tile.state and the invariants of tile.q; pulling back needs what is left in the tile.
template <class Gates>
void gate(const Gates& gates, Tile& t) {
    for (int i = 0; i < TF; i += VL) {
        vec q[NODE - 1], invariants[INVARIANTS];
        load_components<NODE - 1>(t.q + i, q);
        Products(q).invariants(invariants);
        store_components<INVARIANTS>(t.input + TF + i, invariants);
    }
    std::memcpy(t.input, t.state, TF * sizeof(real));
    gates.hidden(t.input, t.activation, t.slope);
    gates.output(t.activation, t.gates);
}

// Node update of a layer that is not the last: tile.state becomes `out`; what `pull_back_update` needs stays in the tile.
void update(const UpdateWeights& w, Tile& t, real* out) {
    for (int i = 0; i < TF; i += VL) {
        vec y[NODE - 1];
        load_components<NODE - 1>(t.state + TF + i, y);
        for (int rank = 0; rank < 3; ++rank) {
            const vec f = damping(y + FIRST[rank], FIRST[rank + 1] - FIRST[rank]);
            for (int c = FIRST[rank]; c < FIRST[rank + 1]; ++c) y[c] *= f;
        }
        store_components<NODE - 1>(t.mixed + i, y);
    }
    w.q.apply(t.mixed, t.q);
    w.p.apply(t.mixed, t.p);
    gate(w.gates, t);
    for (int i = 0; i < TF; i += VL) {
        vec q[NODE - 1], p[NODE - 1], g[TERMS], vv[5], ov[5];
        load_components<NODE - 1>(t.q + i, q);
        load_components<NODE - 1>(t.p + i, p);
        load_components<TERMS>(t.gates + 2 * TF + i, g);
        for (int n = 0; n < TERMS; ++n) g[n] *= damping(g + n, 1);
        const Products products(q);
        products.by_vector(vv, ov);
        const vec x = load(t.state + i), tanh = real(2) * sigmoid(real(2) * load(t.gates + TF + i)) - real(1);
        store(out + i, x + load(t.gates + i) * real(1 / SQRT2) + x * tanh);
        vec change[NODE - 1];
        for (int c = 0; c < 3; ++c) change[c] = g[0] * p[c] + g[3] * products.tv[c] + g[4] * products.ot[c];
        for (int c = 0; c < 5; ++c)
            change[3 + c] = g[1] * p[3 + c] + g[5] * products.tt[c] + g[6] * products.oo[c] + g[7] * vv[c] + g[8] * ov[c];
        for (int c = 8; c < NODE - 1; ++c) change[c] = g[2] * p[c];
        for (int c = 0; c < NODE - 1; ++c) store(out + (1 + c) * TF + i, load(t.state + (1 + c) * TF + i) + change[c]);
    }
}

// tile.gradient, by the result of `update`, becomes that by its input, which is still in the tile.
void pull_back_update(const UpdateWeights& w, Tile& t) {
    for (int i = 0; i < TF; i += VL) {
        vec q[NODE - 1], p[NODE - 1], raw[TERMS], g[TERMS], f[TERMS], vv[5], ov[5], y_[NODE - 1], g_[TERMS];
        load_components<NODE - 1>(t.q + i, q);
        load_components<NODE - 1>(t.p + i, p);
        load_components<TERMS>(t.gates + 2 * TF + i, raw);
        load_components<NODE - 1>(t.gradient + TF + i, y_);
        for (int n = 0; n < TERMS; ++n) f[n] = damping(raw + n, 1), g[n] = raw[n] * f[n];
        const Products products(q);
        products.by_vector(vv, ov);
        const vec by_gate[TERMS] = {dot(y_, p, 3),
                                    dot(y_ + 3, p + 3, 5),
                                    dot(y_ + 8, p + 8, 7),
                                    dot(y_, products.tv, 3),
                                    dot(y_, products.ot, 3),
                                    dot(y_ + 3, products.tt, 5),
                                    dot(y_ + 3, products.oo, 5),
                                    dot(y_ + 3, vv, 5),
                                    dot(y_ + 3, ov, 5)};
        for (int n = 0; n < TERMS; ++n) g_[n] = vec{}, pull_back_damping(raw + n, f[n], by_gate + n, vec{}, 1, g_ + n);
        store_components<TERMS>(t.gates_ + 2 * TF + i, g_);
        for (int c = 0; c < NODE - 1; ++c) store(t.p_ + c * TF + i, g[(c >= 3) + (c >= 8)] * y_[c]);
        const vec x = load(t.state + i), x_ = load(t.gradient + i);
        const vec tanh = real(2) * sigmoid(real(2) * load(t.gates + TF + i)) - real(1);
        store(t.gates_ + i, x_ * real(1 / SQRT2));
        store(t.gates_ + TF + i, x_ * x * (real(1) - tanh * tanh));
        store(t.gradient + i, x_ * (real(1) + tanh));
        store_components<TERMS>(t.gates + 2 * TF + i, g);
    }
    w.gates.pull_back(t.gates_, t.slope, t.scratch, t.input_);
    for (int i = 0; i < TF; i += VL) {
        vec q[NODE - 1], invariants_[INVARIANTS], g[TERMS], q_[NODE - 1];
        load_components<NODE - 1>(t.q + i, q);
        load_components<INVARIANTS>(t.input_ + TF + i, invariants_);
        load_components<TERMS>(t.gates + 2 * TF + i, g);
        Products::Gradients by;
        for (int c = 0; c < 3; ++c) {
            const vec y_ = load(t.gradient + (1 + c) * TF + i);
            by.tv[c] = g[3] * y_, by.ot[c] = g[4] * y_;
        }
        for (int c = 0; c < 5; ++c) {
            const vec y_ = load(t.gradient + (4 + c) * TF + i);
            by.tt[c] = g[5] * y_, by.oo[c] = g[6] * y_, by.vv[c] = g[7] * y_, by.ov[c] = g[8] * y_;
        }
        Products(q).pull_back<true>(q, invariants_, by, q_);
        store_components<NODE - 1>(t.q_ + i, q_);
        add(t.gradient + i, load(t.input_ + i));
    }
    std::memset(t.mixed, 0, (NODE - 1) * TF * sizeof(real));
    w.q.pull_back(t.q_, t.mixed);
    w.p.pull_back(t.p_, t.mixed);
    for (int i = 0; i < TF; i += VL) {
        vec y[NODE - 1], mixed_[NODE - 1], y_[NODE - 1];
        load_components<NODE - 1>(t.state + TF + i, y);
        load_components<NODE - 1>(t.mixed + i, mixed_);
        load_components<NODE - 1>(t.gradient + TF + i, y_);
        for (int rank = 0; rank < 3; ++rank) {
            const int begin = FIRST[rank], n = FIRST[rank + 1] - begin;
            pull_back_damping(y + begin, damping(y + begin, n), mixed_ + begin, vec{}, n, y_ + begin);
        }
        store_components<NODE - 1>(t.gradient + TF + i, y_);
    }
}

void source_gates(const MessageWeights& w, Tile& t, const real* state) {
    w.source.hidden(state, t.source_activation, t.source_slope);
    w.source.output(t.source_activation, t.source_gates);
}

// What neighbours read of x and y in `state`: s, g⊙v and h⊙T, atom by atom.
void source(const MessageWeights& w, Tile& t, const real* state, real* out) {
    source_gates(w, t, state);
    for (int i = 0; i < TF; i += VL) {
        real* atom = out + i / F * READ * F + i % F;
        store(atom, load(t.source_gates + i));
        for (int rank = 0; rank < 2; ++rank) {
            vec gate = load(t.source_gates + (1 + rank) * TF + i);
            gate *= damping(&gate, 1);
            for (int c = rank ? 3 : 0; c < (rank ? 8 : 3); ++c) store(atom + (1 + c) * F, gate * load(state + (1 + c) * TF + i));
        }
    }
}

// Adds to tile.gradient what tile.own_, the gradient by `source`, means for its input.
void pull_back_source(const MessageWeights& w, Tile& t, const real* state) {
    std::memcpy(t.gates_, t.own_, TF * sizeof(real));
    for (int i = 0; i < TF; i += VL) {
        for (int rank = 0; rank < 2; ++rank) {
            const vec raw = load(t.source_gates + (1 + rank) * TF + i), f = damping(&raw, 1);
            vec by_gate{}, by_raw{};
            for (int c = rank ? 3 : 0; c < (rank ? 8 : 3); ++c) {
                const vec own_ = load(t.own_ + (1 + c) * TF + i);
                by_gate += own_ * load(state + (1 + c) * TF + i);
                add(t.gradient + (1 + c) * TF + i, own_ * raw * f);
            }
            pull_back_damping(&raw, f, &by_gate, vec{}, 1, &by_raw);
            store(t.gates_ + (1 + rank) * TF + i, by_raw);
        }
    }
    w.source.pull_back(t.gates_, t.source_slope, t.scratch, t.input_);
    for (int i = 0; i < TF; i += VL) add(t.gradient + i, load(t.input_ + i));
}

// Last update and readout of tile.state: raw energies, and tile.gradient.
void head(const HeadWeights& w, Tile& t, real* energy) {
    w.q.apply(t.state + TF, t.q);
    gate(w.gates, t);
    for (int i = 0; i < TF; i += VL) {
        const vec x = load(t.state + i), tanh = real(2) * sigmoid(real(2) * load(t.gates + TF + i)) - real(1);
        store(t.mixed + i, x + load(t.gates + i) * real(1 / SQRT2) + x * tanh);
    }
    w.readout.hidden(t.mixed, t.source_activation, t.source_slope);
    for (int atom = 0; atom < T; ++atom) {
        real sum = w.bias[0];
        for (int f = 0; f < F; ++f) sum += t.source_activation[atom * F + f] * w.last[f];
        energy[atom] = sum;
        std::memcpy(t.scratch + atom * F, w.last, F * sizeof(real));
    }
    w.readout.pull_back_hidden(t.source_slope, t.scratch, t.input_);
    for (int i = 0; i < TF; i += VL) {
        const vec x = load(t.state + i), x_ = load(t.input_ + i);
        const vec tanh = real(2) * sigmoid(real(2) * load(t.gates + TF + i)) - real(1);
        store(t.gates_ + i, x_ * real(1 / SQRT2));
        store(t.gates_ + TF + i, x_ * x * (real(1) - tanh * tanh));
        store(t.gradient + i, x_ * (real(1) + tanh));
    }
    w.gates.pull_back(t.gates_, t.slope, t.scratch, t.input_);
    for (int i = 0; i < TF; i += VL) {
        vec q[NODE - 1], invariants_[INVARIANTS], q_[NODE - 1];
        load_components<NODE - 1>(t.q + i, q);
        load_components<INVARIANTS>(t.input_ + TF + i, invariants_);
        Products::Gradients none = {};
        Products(q).pull_back<false>(q, invariants_, none, q_);
        store_components<NODE - 1>(t.q_ + i, q_);
        add(t.gradient + i, load(t.input_ + i));
    }
    std::memset(t.gradient + TF, 0, (NODE - 1) * TF * sizeof(real));
    w.q.pull_back(t.q_, t.gradient + TF);
}

}  // namespace

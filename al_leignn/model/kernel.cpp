// Energies, forces and virials of preset `local` on a CPU: forward and backward passes written by hand.
//
// docs/model.md has the equations; names here follow it. kernel.py compiles this file once for each precision (REAL), number of
// features (FEATURES) and of radial functions (RADIAL), lays out the weights and checks the results against the network itself.
//
// Work is done in tiles of T atoms. Node features of a tile are stored component by component, [component][T][F], so that every
// linear map is a product of F x F blocks; features that neighbours read are stored atom by atom, [atom][9][F]. The backward pass
// uses that every edge has its reverse: what an atom's features mean to its neighbours is gathered by that atom. Each
// number is thus computed by one thread in a fixed order, and results depend neither on threads nor on what else is in the batch.
//
// NaN must come out where NaN or infinity goes in: edges that are not finite count as within the cutoff.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace {

using real = REAL;

#if defined(__AVX512F__)
constexpr int BYTES = 64;
#elif defined(__AVX__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif
constexpr int VL = BYTES / sizeof(real);  // lanes of a vector
typedef real vec __attribute__((vector_size(BYTES)));
typedef std::conditional_t<sizeof(real) == 4, std::int32_t, std::int64_t> whole;
typedef whole wholes __attribute__((vector_size(BYTES)));

#define INLINE inline __attribute__((always_inline))

constexpr int rounded(int n) { return (n + VL - 1) / VL * VL; }

constexpr int K = RADIAL;
constexpr int F = rounded(FEATURES);  // the features that fill the last vector have zero weights and stay zero
constexpr int T = 8;                  // atoms in a tile
constexpr int TF = T * F;
constexpr int KP = rounded(K);

constexpr double PI = 3.14159265358979323846, SQRT2 = 1.41421356237309504880, SQRT3 = 1.73205080756887729353;
constexpr double SQRT5 = 2.23606797749978969641, SQRT6 = 2.44948974278317809820, SQRT7 = 2.64575131106459059050;

// ---- vectors

INLINE vec load(const real* p) {
    vec v;
    std::memcpy(&v, p, BYTES);
    return v;
}
INLINE void store(real* p, vec v) { std::memcpy(p, &v, BYTES); }
INLINE void add(real* p, vec v) { store(p, load(p) + v); }
INLINE vec all(double value) { return vec{} + real(value); }

INLINE vec sqrt(vec a) {
    vec root;
    for (int i = 0; i < VL; ++i) root[i] = std::sqrt(a[i]);
    return root;
}

INLINE vec exp(vec x) {
    constexpr bool single = sizeof(real) == 4;
    constexpr double limit = single ? 87 : 708;
    x = x > all(limit) ? all(limit) : x;
    x = x < all(-limit) ? all(-limit) : x;
    const vec shift = all(single ? 12582912.0 : 6755399441055744.0);  // 1.5 times 2^23 or 2^52: the sum has no fraction
    const vec n = (x * real(1.44269504088896340736) + shift) - shift;
    const vec r = (x - n * real(single ? 0.693359375 : 6.93147180369123816490e-01)) -
                  n * real(single ? -2.12194440e-4 : 1.90821492927058770002e-10);
    vec sum = all(1);
    for (int j = single ? 7 : 13; j > 0; --j) sum = sum * r * real(1.0 / j) + real(1);
    const wholes power = (__builtin_convertvector(n, wholes) + (single ? 127 : 1023)) << (single ? 23 : 52);
    return sum * (vec)power;
}

INLINE vec sigmoid(vec x) { return real(1) / (real(1) + exp(-x)); }

// Sums over the lanes of `rows` vectors, into the first lane of each.
INLINE void sum_lanes(real* v, int rows) {
    for (int row = 0; row < rows; ++row, v += VL)
        for (int half = VL / 2; half > 0; half /= 2)
            for (int i = 0; i < half; ++i) v[i] += v[i + half];
}

// ---- linear maps

// C (rows x n) = [C +] A (rows x k) B (k x n); rows is a multiple of 8, n of VL.
template <bool accumulate, int columns>
INLINE void multiply_panel(int rows, int k, const real* A, int lda, const real* B, int ldb, real* C, int ldc) {
    for (int row = 0; row < rows; row += 8, A += 8 * lda, C += 8 * ldc) {
        vec sum[8][columns];
        for (int r = 0; r < 8; ++r)
            for (int c = 0; c < columns; ++c) sum[r][c] = accumulate ? load(C + r * ldc + c * VL) : vec{};
        for (int i = 0; i < k; ++i) {
            vec b[columns];
            for (int c = 0; c < columns; ++c) b[c] = load(B + i * ldb + c * VL);
            for (int r = 0; r < 8; ++r)
                for (int c = 0; c < columns; ++c) sum[r][c] += A[r * lda + i] * b[c];
        }
        for (int r = 0; r < 8; ++r)
            for (int c = 0; c < columns; ++c) store(C + r * ldc + c * VL, sum[r][c]);
    }
}

template <bool accumulate>
void multiply(int rows, int k, int n, const real* A, int lda, const real* B, real* C, int ldc) {
    int column = 0;
    for (; column + 2 * VL <= n; column += 2 * VL) multiply_panel<accumulate, 2>(rows, k, A, lda, B + column, n, C + column, ldc);
    for (; column < n; column += VL) multiply_panel<accumulate, 1>(rows, k, A, lda, B + column, n, C + column, ldc);
}

// The same with an F x F block, for `components` components of a tile.
template <bool accumulate>
void map(int components, const real* A, const real* B, real* C) {
    multiply<accumulate>(components * T, F, F, A, F, B, C, F);
}

// ---- weights, in the order in which kernel.py writes them

struct Reader {
    const real* next;
    const real* take(std::int64_t n) {
        const real* here = next;
        next += n;
        return here;
    }
};

// A pair of F x F maps, for vectors and for matrices, and their transposes.
struct Mix {
    const real *forward, *backward;
    explicit Mix(Reader& r) : forward(r.take(2 * F * F)), backward(r.take(2 * F * F)) {}

    void apply(const real* y, real* out) const {
        map<false>(3, y, forward, out);
        map<false>(5, y + 3 * TF, forward + F * F, out + 3 * TF);
    }
    void pull_back(const real* gradient, real* out) const {
        map<true>(3, gradient, backward, out);
        map<true>(5, gradient + 3 * TF, backward + F * F, out + 3 * TF);
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
    // From the gradient by the output to that by each input component, which `use` takes; `scratch` holds one component.
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

struct UpdateWeights {
    Mix q, p;
    Perceptron<5, 7> gates;
    explicit UpdateWeights(Reader& r) : q(r), p(r), gates(r) {}
};

struct MessageWeights {
    Perceptron<1, 3> source;
    const real* filter;  // [F / VL][K][5][VL]: three filters of harmonics, two of carried tensors
    explicit MessageWeights(Reader& r) : source(r), filter(r.take(5 * K * F)) {}
};

struct HeadWeights {
    Mix q;
    Perceptron<5, 2> gates;
    Perceptron<1, 0> readout;
    const real *last, *bias;  // of the readout's second layer
    explicit HeadWeights(Reader& r) : q(r), gates(r), readout(r), last(r.take(F)), bias(r.take(VL)) {}
};

// ---- products of tensors, lane by lane

struct Symmetric {
    vec xx, yy, zz, xy, yz, xz;
};

// Five components in the orthonormal basis xy, yz, xz, x²-y², 2z²-x²-y² as a matrix; `project` is the adjoint.
INLINE Symmetric expand(const vec* t) {
    const vec a = t[3] * real(1 / SQRT2), b = t[4] * real(1 / SQRT6);
    return {a - b, -a - b, b + b, t[0] * real(1 / SQRT2), t[1] * real(1 / SQRT2), t[2] * real(1 / SQRT2)};
}
INLINE void project(const Symmetric& m, vec* t) {
    t[0] = m.xy * real(SQRT2);
    t[1] = m.yz * real(SQRT2);
    t[2] = m.xz * real(SQRT2);
    t[3] = (m.xx - m.yy) * real(1 / SQRT2);
    t[4] = (m.zz + m.zz - m.xx - m.yy) * real(1 / SQRT6);
}
INLINE void apply(const Symmetric& m, const vec* v, vec* out) {
    out[0] = m.xx * v[0] + m.xy * v[1] + m.xz * v[2];
    out[1] = m.xy * v[0] + m.yy * v[1] + m.yz * v[2];
    out[2] = m.xz * v[0] + m.yz * v[1] + m.zz * v[2];
}
// (a b + b a)/2
INLINE Symmetric half_anticommutator(const Symmetric& a, const Symmetric& b) {
    const real half(0.5);
    return {a.xx * b.xx + a.xy * b.xy + a.xz * b.xz,
            a.xy * b.xy + a.yy * b.yy + a.yz * b.yz,
            a.xz * b.xz + a.yz * b.yz + a.zz * b.zz,
            half * (a.xx * b.xy + a.xy * b.yy + a.xz * b.yz + b.xx * a.xy + b.xy * a.yy + b.xz * a.yz),
            half * (a.xy * b.xz + a.yy * b.yz + a.yz * b.zz + b.xy * a.xz + b.yy * a.yz + b.yz * a.zz),
            half * (a.xx * b.xz + a.xy * b.yz + a.xz * b.zz + b.xx * a.xz + b.xy * a.yz + b.xz * a.zz)};
}
// (a⊗b + b⊗a)/2
INLINE Symmetric half_outer(const vec* a, const vec* b) {
    const real half(0.5);
    return {a[0] * b[0], a[1] * b[1], a[2] * b[2],
            half * (a[0] * b[1] + a[1] * b[0]), half * (a[1] * b[2] + a[2] * b[1]), half * (a[0] * b[2] + a[2] * b[0])};
}

INLINE vec dot(const vec* a, const vec* b, int n) {
    vec sum = a[0] * b[0];
    for (int c = 1; c < n; ++c) sum += a[c] * b[c];
    return sum;
}

// (1 + mean square)^(-1/4) of n components; and the gradient by y from those by f y and by f, added to `out`.
INLINE vec damping(const vec* y, int n) { return sqrt(real(1) / sqrt(real(1) + dot(y, y, n) * real(1.0 / n))); }
INLINE void pull_back_damping(const vec* y, vec f, const vec* gradient, vec gradient_f, int n, vec* out) {
    const vec square = f * f;
    const vec along = square * square * f * real(-0.5 / n) * (dot(gradient, y, n) + gradient_f);
    for (int c = 0; c < n; ++c) out[c] += f * gradient[c] + along * y[c];
}

// Products of an atom's own vector q[0..2] and matrix q[3..7].
struct Products {
    vec f[2], d[8], same[8];  // damping factors; damped components; t v and the traceless part of t t
    Symmetric t;

    INLINE explicit Products(const vec* q) {
        f[0] = damping(q, 3);
        f[1] = damping(q + 3, 5);
        for (int c = 0; c < 8; ++c) d[c] = q[c] * f[c >= 3];
        t = expand(d + 3);
        apply(t, d, same);
        project(half_anticommutator(t, t), same + 3);
        for (int c = 0; c < 3; ++c) same[c] *= real(SQRT3 / SQRT5);
        for (int c = 3; c < 8; ++c) same[c] *= real(2 * SQRT3 / SQRT7);
    }
    INLINE void invariants(vec* out) const {
        out[0] = dot(d, d, 3) * real(1 / SQRT3);
        out[1] = dot(d + 3, d + 3, 5) * real(1 / SQRT5);
        out[2] = f[0] * dot(d, same, 3) * real(1 / SQRT3);
        out[3] = f[1] * dot(d + 3, same + 3, 5) * real(1 / SQRT5);
    }
    INLINE void outer(vec* out) const { project(half_outer(d, d), out); }

    // Gradient by q; `same_` is changed, and so is `outer_` if given.
    INLINE void pull_back(const vec* q, const vec* invariants_, vec* same_, const vec* outer_, vec* out) const {
        const vec cubic[2] = {invariants_[2] * real(1 / SQRT3), invariants_[3] * real(1 / SQRT5)};
        const vec square[2] = {invariants_[0] * real(2 / SQRT3), invariants_[1] * real(2 / SQRT5)};
        const vec f_[2] = {cubic[0] * dot(d, same, 3), cubic[1] * dot(d + 3, same + 3, 5)};
        vec d_[8], term[5];
        for (int c = 0; c < 8; ++c) {
            const int rank = c >= 3;
            d_[c] = square[rank] * d[c] + cubic[rank] * f[rank] * same[c];
            same_[c] = (same_[c] + cubic[rank] * f[rank] * d[c]) * real(rank ? 4 * SQRT3 / SQRT7 : SQRT3 / SQRT5);
        }
        apply(t, same_, term);
        for (int c = 0; c < 3; ++c) d_[c] += term[c];
        project(half_outer(same_, d), term);
        for (int c = 0; c < 5; ++c) d_[3 + c] += term[c];
        project(half_anticommutator(expand(same_ + 3), t), term);
        for (int c = 0; c < 5; ++c) d_[3 + c] += term[c];
        if (outer_) {
            apply(expand(outer_), d, term);
            for (int c = 0; c < 3; ++c) d_[c] += real(2) * term[c];
        }
        for (int c = 0; c < 8; ++c) out[c] = vec{};
        pull_back_damping(q, f[0], d_, f_[0], 3, out);
        pull_back_damping(q + 3, f[1], d_ + 3, f_[1], 5, out + 3);
    }
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
    real state[9 * TF];              // x and y
    real input[5 * TF];              // x and invariants
    real mixed[9 * TF];              // y damped; later gradients of it
    real q[8 * TF], p[8 * TF];
    real activation[TF], slope[TF], gates[7 * TF], scratch[TF];
    real source_activation[TF], source_slope[TF], source_gates[3 * TF];
    real gradient[9 * TF];           // by x and y
    real gates_[7 * TF], p_[8 * TF], q_[8 * TF], input_[5 * TF];
    real own_[9 * TF];               // gradient by what neighbours read
};

// Node update of a layer that is not the last: tile.state becomes `out`; what `pull_back_update` needs stays in the tile.
void update(const UpdateWeights& w, Tile& t, real* out) {
    for (int i = 0; i < TF; i += VL) {
        vec y[8];
        load_components<8>(t.state + TF + i, y);
        const vec f[2] = {damping(y, 3), damping(y + 3, 5)};
        for (int c = 0; c < 8; ++c) y[c] *= f[c >= 3];
        store_components<8>(t.mixed + i, y);
    }
    w.q.apply(t.mixed, t.q);
    w.p.apply(t.mixed, t.p);
    for (int i = 0; i < TF; i += VL) {
        vec q[8], invariants[4];
        load_components<8>(t.q + i, q);
        Products(q).invariants(invariants);
        store_components<4>(t.input + TF + i, invariants);
    }
    std::memcpy(t.input, t.state, TF * sizeof(real));
    w.gates.hidden(t.input, t.activation, t.slope);
    w.gates.output(t.activation, t.gates);
    for (int i = 0; i < TF; i += VL) {
        vec q[8], p[8], gate[5], outer[5];
        load_components<8>(t.q + i, q);
        load_components<8>(t.p + i, p);
        load_components<5>(t.gates + 2 * TF + i, gate);
        for (int g = 0; g < 5; ++g) gate[g] *= damping(gate + g, 1);
        const Products products(q);
        products.outer(outer);
        const vec x = load(t.state + i), tanh = real(2) * sigmoid(real(2) * load(t.gates + TF + i)) - real(1);
        store(out + i, x + load(t.gates + i) * real(1 / SQRT2) + x * tanh);
        for (int c = 0; c < 8; ++c) {
            const int rank = c >= 3;
            vec change = gate[rank] * p[c] + gate[2 + rank] * products.same[c];
            if (rank) change += gate[4] * outer[c - 3];
            store(out + (1 + c) * TF + i, load(t.state + (1 + c) * TF + i) + change);
        }
    }
}

// tile.gradient, by the result of `update`, becomes that by its input, which is still in the tile.
void pull_back_update(const UpdateWeights& w, Tile& t) {
    for (int i = 0; i < TF; i += VL) {
        vec q[8], p[8], raw[5], gate[5], f[5], outer[5], y_[8], gate_[5];
        load_components<8>(t.q + i, q);
        load_components<8>(t.p + i, p);
        load_components<5>(t.gates + 2 * TF + i, raw);
        load_components<8>(t.gradient + TF + i, y_);
        for (int g = 0; g < 5; ++g) f[g] = damping(raw + g, 1), gate[g] = raw[g] * f[g];
        const Products products(q);
        products.outer(outer);
        const vec by_gate[5] = {dot(y_, p, 3), dot(y_ + 3, p + 3, 5), dot(y_, products.same, 3),
                                dot(y_ + 3, products.same + 3, 5), dot(y_ + 3, outer, 5)};
        for (int g = 0; g < 5; ++g) gate_[g] = vec{}, pull_back_damping(raw + g, f[g], by_gate + g, vec{}, 1, gate_ + g);
        store_components<5>(t.gates_ + 2 * TF + i, gate_);
        for (int c = 0; c < 8; ++c) store(t.p_ + c * TF + i, gate[c >= 3] * y_[c]);
        const vec x = load(t.state + i), x_ = load(t.gradient + i);
        const vec tanh = real(2) * sigmoid(real(2) * load(t.gates + TF + i)) - real(1);
        store(t.gates_ + i, x_ * real(1 / SQRT2));
        store(t.gates_ + TF + i, x_ * x * (real(1) - tanh * tanh));
        store(t.gradient + i, x_ * (real(1) + tanh));
        store_components<5>(t.gates + 2 * TF + i, gate);
    }
    w.gates.pull_back(t.gates_, t.slope, t.scratch, t.input_);
    for (int i = 0; i < TF; i += VL) {
        vec q[8], invariants_[4], same_[8], outer_[5], gate[5], q_[8];
        load_components<8>(t.q + i, q);
        load_components<4>(t.input_ + TF + i, invariants_);
        load_components<5>(t.gates + 2 * TF + i, gate);
        for (int c = 0; c < 8; ++c) {
            const vec y_ = load(t.gradient + (1 + c) * TF + i);
            same_[c] = gate[2 + (c >= 3)] * y_;
            if (c >= 3) outer_[c - 3] = gate[4] * y_;
        }
        Products(q).pull_back(q, invariants_, same_, outer_, q_);
        store_components<8>(t.q_ + i, q_);
        add(t.gradient + i, load(t.input_ + i));
    }
    std::memset(t.mixed, 0, 8 * TF * sizeof(real));
    w.q.pull_back(t.q_, t.mixed);
    w.p.pull_back(t.p_, t.mixed);
    for (int i = 0; i < TF; i += VL) {
        vec y[8], mixed_[8], y_[8];
        load_components<8>(t.state + TF + i, y);
        load_components<8>(t.mixed + i, mixed_);
        load_components<8>(t.gradient + TF + i, y_);
        pull_back_damping(y, damping(y, 3), mixed_, vec{}, 3, y_);
        pull_back_damping(y + 3, damping(y + 3, 5), mixed_ + 3, vec{}, 5, y_ + 3);
        store_components<8>(t.gradient + TF + i, y_);
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
        real* atom = out + i / F * 9 * F + i % F;
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
    for (int i = 0; i < TF; i += VL) {
        vec q[8], invariants[4];
        load_components<8>(t.q + i, q);
        Products(q).invariants(invariants);
        store_components<4>(t.input + TF + i, invariants);
    }
    std::memcpy(t.input, t.state, TF * sizeof(real));
    w.gates.hidden(t.input, t.activation, t.slope);
    w.gates.output(t.activation, t.gates);
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
        vec q[8], invariants_[4], same_[8] = {}, q_[8];
        load_components<8>(t.q + i, q);
        load_components<4>(t.input_ + TF + i, invariants_);
        Products(q).pull_back(q, invariants_, same_, nullptr, q_);
        store_components<8>(t.q_ + i, q_);
        add(t.gradient + i, load(t.input_ + i));
    }
    std::memset(t.gradient + TF, 0, 8 * TF * sizeof(real));
    w.q.pull_back(t.q_, t.gradient + TF);
}

// ---- edges

// One structure or many, as kernel.py hands them over.
struct Structures {
    std::int64_t n_atoms, n_structures, n_edges, widest;  // widest: most edges of an atom
    const std::int64_t *species, *structure, *first, *neighbour;
    const double *positions, *cell, *shift;
};

// Edges within the cutoff: those of atom i start at first[i], like in the list they come from, and are count[i] many.
struct Pairs {
    std::int32_t *count, *neighbour, *kind;
    real *x, *y, *z;  // from centre to neighbour, Å
};

// Constants of the elements and of the whole potential, in eV and Å.
struct Elements {
    double cutoff, scale;
    std::int64_t n;
    const double *e0, *charge, *radius;
};

void find_pairs(const Structures& s, double cutoff, std::int64_t i, const Pairs& pairs) {
    const double* cell = s.cell + 9 * s.structure[i];
    const double* here = s.positions + 3 * i;
    std::int64_t kept = s.first[i];
    for (std::int64_t e = s.first[i]; e < s.first[i + 1]; ++e) {
        const std::int64_t j = s.neighbour[e];
        const double *there = s.positions + 3 * j, *n = s.shift + 3 * e;
        double d[3];
        for (int c = 0; c < 3; ++c) d[c] = (there[c] - here[c]) + (n[0] * cell[c] + n[1] * cell[3 + c] + n[2] * cell[6 + c]);
        const double square = d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
        if (square >= cutoff * cutoff && std::isfinite(square)) continue;
        pairs.neighbour[kept] = std::int32_t(j);
        pairs.kind[kept] = std::int32_t(s.species[j]);
        pairs.x[kept] = real(d[0]);
        pairs.y[kept] = real(d[1]);
        pairs.z[kept] = real(d[2]);
        ++kept;
    }
    pairs.count[i] = std::int32_t(kept - s.first[i]);
}

// The edges of one atom with their basis; each array has room for the widest row, filled up to whole vectors.
struct Surroundings {
    int count, filled, room;
    const std::int32_t *neighbour, *kind;
    real *u[3], *r, *core;
    real *y1[3], *y2[5], *steep[3], *flat[3];  // harmonics; √15 u and √5 u, of which their derivatives are made
    real *radial, *slope;                      // [K][room]: R_k and dR_k/dr
    real *rows;                                // [room][max(KP, 4 VL)], free
    real *sums[4];                             // derivatives by r and by u
    bool pressed;                              // some pair is inside its core

    static std::int64_t size(std::int64_t room) { return room * (5 + 14 + 2 * K + 4 + std::max(KP, 4 * VL)); }

    Surroundings(real* memory, int room_) : room(room_) {
        const auto take = [&](int n) { real* here = memory; memory += std::int64_t(n) * room; return here; };
        rows = take(std::max(KP, 4 * VL));
        radial = take(K), slope = take(K);
        for (auto& p : u) p = take(1);
        for (auto& p : y1) p = take(1);
        for (auto& p : y2) p = take(1);
        for (auto& p : steep) p = take(1);
        for (auto& p : flat) p = take(1);
        for (auto& p : sums) p = take(1);
        r = take(1), core = take(1);
    }

    void look(const Pairs& pairs, const Elements& elements, std::int64_t begin, std::int32_t n, std::int64_t own_kind) {
        count = n, filled = rounded(n);
        neighbour = pairs.neighbour + begin, kind = pairs.kind + begin;
        const real* from[3] = {pairs.x + begin, pairs.y + begin, pairs.z + begin};
        for (int c = 0; c < 3; ++c) {
            std::memcpy(u[c], from[c], n * sizeof(real));
            for (int e = n; e < filled; ++e) u[c][e] = c ? real(0) : real(elements.cutoff);
        }
        pressed = false;
        for (int e = 0; e < filled; ++e) {
            r[e] = std::sqrt(u[0][e] * u[0][e] + u[1][e] * u[1][e] + u[2][e] * u[2][e]);
            core[e] = e < n ? real(elements.radius[own_kind] + elements.radius[kind[e]]) : real(0);
            pressed |= r[e] < core[e];
        }
        for (int e = 0; e < filled; e += VL) basis(e, real(elements.cutoff));
    }

    INLINE void basis(int e, real cutoff) {
        const vec length = load(r + e), inverse = real(1) / length;
        const vec x = load(u[0] + e) * inverse, y = load(u[1] + e) * inverse, z = load(u[2] + e) * inverse;
        const vec direction[3] = {x, y, z};
        for (int c = 0; c < 3; ++c) {
            store(u[c] + e, direction[c]);
            store(y1[c] + e, direction[c] * real(SQRT3));
            store(steep[c] + e, direction[c] * real(SQRT3 * SQRT5));
            store(flat[c] + e, direction[c] * real(SQRT5));
        }
        const real steep_ = real(SQRT3 * SQRT5);
        store(y2[0] + e, steep_ * x * y);
        store(y2[1] + e, steep_ * y * z);
        store(y2[2] + e, steep_ * x * z);
        store(y2[3] + e, real(SQRT3 * SQRT5 / 2) * (x * x - y * y));
        store(y2[4] + e, real(SQRT5 / 2) * (real(2) * z * z - x * x - y * y));

        // Distances seen by the network level off inside the core.
        vec distance = length, rate = all(1);
        if (pressed) {
            const vec edge = load(core + e), s = length / edge;
            distance = length < edge ? edge * (real(0.5) + s * s * s * (real(1) - real(0.5) * s)) : length;
            rate = length < edge ? s * s * (real(3) - real(2) * s) : rate;
        }
        vec d = distance / cutoff;
        d = d > all(1) ? all(1) : d;
        // sin and cos of pi d, from Taylor series around d = 1/2
        const vec angle = (d - real(0.5)) * real(PI), square = angle * angle;
        vec even = all(1), odd = all(1);
        for (int n = sizeof(real) == 4 ? 14 : 24; n >= 2; n -= 2) {
            even = real(1) - even * square * real(1.0 / (n * (n - 1)));
            odd = real(1) - odd * square * real(1.0 / (n * (n + 1)));
        }
        const vec sin_1 = even, cos_1 = -odd * angle;
        // The envelope 1 - 21 d^5 + 35 d^6 - 15 d^7, as a product, which does not cancel near d = 1.
        const vec rest = real(1) - d, over_d = real(1) / d;
        const vec quartic = real(1) + d * (real(3) + d * (real(6) + d * (real(10) + d * real(15))));
        const vec factor = rest * rest * rest * quartic * over_d;
        const vec factor_ = (real(-105) * d * d * d * rest * rest - factor * over_d) * rate / cutoff;
        const vec inner = factor * rate * real(PI) / cutoff;
        vec sin_k = sin_1, cos_k = cos_1;
        for (int k = 0; k < K; ++k) {
            store(radial + k * room + e, factor * sin_k);
            store(slope + k * room + e, factor_ * sin_k + inner * real(k + 1) * cos_k);
            const vec next = sin_k * cos_1 + cos_k * sin_1;
            cos_k = cos_k * cos_1 - sin_k * sin_1;
            sin_k = next;
        }
    }

    // Turns derivatives by r and u of each edge (`sums`) into ones by its vector and adds them to `gradient`.
    void by_vector(real scale, real* gradient) const {
        for (int e = 0; e < count; ++e) {
            const real along = u[0][e] * sums[1][e] + u[1][e] * sums[2][e] + u[2][e] * sums[3][e];
            for (int c = 0; c < 3; ++c)
                gradient[3 * e + c] += scale * (sums[0][e] * u[c][e] + (sums[1 + c][e] - along * u[c][e]) / r[e]);
        }
    }
};

// Gradient by u of Y⁽²⁾(u)·g, from √15 u and √5 u.
template <class number>
INLINE void matrix_by_u(const number* u15, const number* u5, const vec* g, vec* out) {
    out[0] = u15[1] * g[0] + u15[2] * g[2] + u15[0] * g[3] - u5[0] * g[4];
    out[1] = u15[0] * g[0] + u15[2] * g[1] - u15[1] * g[3] - u5[1] * g[4];
    out[2] = u15[1] * g[1] + u15[0] * g[2] + (u5[2] + u5[2]) * g[4];
}

// First message: sums over neighbours of each species, out[component][.][species * K + k] with rows of `width`.
void first_sums(const Surroundings& s, int width, real* out) {
    for (int e = 0; e < s.count; ++e) {
        real* row = s.rows + e * KP;
        for (int k = 0; k < KP; ++k) row[k] = k < K ? s.radial[k * s.room + e] : real(0);
        const vec y[9] = {all(1), all(s.y1[0][e]), all(s.y1[1][e]), all(s.y1[2][e]), all(s.y2[0][e]),
                          all(s.y2[1][e]), all(s.y2[2][e]), all(s.y2[3][e]), all(s.y2[4][e])};
        for (int k = 0; k < KP; k += VL)
            for (int c = 0; c < 9; ++c) add(out + std::int64_t(c) * T * width + s.kind[e] * K + k, y[c] * load(row + k));
    }
}

// Backward of it, into s.sums, all edges of a vector at once.
void pull_back_first(const Surroundings& s, int n_species, int width, const real* gradient) {
    for (int e = 0; e < s.filled; e += VL) {
        vec sums[4] = {};
        vec y1[3], u15[3], u5[3];
        for (int c = 0; c < 3; ++c)
            y1[c] = load(s.y1[c] + e), u15[c] = load(s.steep[c] + e), u5[c] = load(s.flat[c] + e);
        for (int kind = 0; kind < n_species; ++kind) {
            vec mask;
            for (int i = 0; i < VL; ++i) mask[i] = e + i < s.count && s.kind[e + i] == kind;
            vec value[9] = {}, change[9] = {};
            for (int k = 0; k < K; ++k) {
                const vec radial = load(s.radial + k * s.room + e), slope = load(s.slope + k * s.room + e);
                for (int c = 0; c < 9; ++c) {
                    const real g = gradient[std::int64_t(c) * T * width + kind * K + k];
                    value[c] += radial * g;
                    change[c] += slope * g;
                }
            }
            vec y2[5];
            for (int c = 0; c < 5; ++c) y2[c] = load(s.y2[c] + e);
            vec by_u[3];
            matrix_by_u(u15, u5, value + 4, by_u);
            sums[0] += mask * (change[0] + dot(y1, change + 1, 3) + dot(y2, change + 4, 5));
            for (int c = 0; c < 3; ++c) sums[1 + c] += mask * (real(SQRT3) * value[1 + c] + by_u[c]);
        }
        for (int n = 0; n < 4; ++n) store(s.sums[n] + e, sums[n]);
    }
}

// Message to an atom from what its neighbours offer, `sources` [atom][9][F]; into rows of F of a tile.
void message(const MessageWeights& w, const Surroundings& s, const real* sources, real* out) {
    for (int block = 0; block < F / VL; ++block) {
        vec sum[9] = {};
        for (int e = 0; e < s.count; ++e) {
            const real* from = sources + std::int64_t(s.neighbour[e]) * 9 * F + block * VL;
            const real* filter = w.filter + block * K * 5 * VL;
            vec f[5] = {};
            for (int k = 0; k < K; ++k, filter += 5 * VL) {
                const real radial = s.radial[k * s.room + e];
                for (int n = 0; n < 5; ++n) f[n] += radial * load(filter + n * VL);
            }
            const vec x = load(from);
            sum[0] += f[0] * x;
            f[1] *= x, f[2] *= x;
            for (int c = 0; c < 3; ++c) sum[1 + c] += f[1] * s.y1[c][e] + f[3] * load(from + (1 + c) * F);
            for (int c = 0; c < 5; ++c) sum[4 + c] += f[2] * s.y2[c][e] + f[4] * load(from + (4 + c) * F);
        }
        for (int c = 0; c < 9; ++c) store(out + c * TF + block * VL, sum[c]);
    }
}

// Backward of `message` for what this atom offered its neighbours (`own`, [9][F]): the gradient by it, into rows of a tile, and
// s.sums. `gradients` [atom][9][F] are those by the messages that neighbours received, along edges that point here.
void pull_back_message(const MessageWeights& w, const Surroundings& s, const real* own, const real* gradients, real* own_) {
    for (int block = 0; block < F / VL; ++block) {
        vec sum[9] = {}, o[9];
        for (int c = 0; c < 9; ++c) o[c] = load(own + c * F + block * VL);
        for (int e = 0; e < s.count; ++e) {
            const real* from = gradients + std::int64_t(s.neighbour[e]) * 9 * F + block * VL;
            const real* filter = w.filter + block * K * 5 * VL;
            vec f[5] = {}, f_[5] = {}, g[9];
            for (int k = 0; k < K; ++k, filter += 5 * VL) {
                const real radial = s.radial[k * s.room + e], slope = s.slope[k * s.room + e];
                for (int n = 0; n < 5; ++n) {
                    const vec weight = load(filter + n * VL);
                    f[n] += radial * weight;
                    f_[n] += slope * weight;
                }
            }
            for (int c = 0; c < 9; ++c) g[c] = load(from + c * F);
            const real u15[3] = {s.steep[0][e], s.steep[1][e], s.steep[2][e]}, u5[3] = {s.flat[0][e], s.flat[1][e], s.flat[2][e]};
            vec by_u[3];
            matrix_by_u(u15, u5, g + 4, by_u);
            // The edge points here: vectors change sign.
            const vec vector = -(s.y1[0][e] * g[1] + s.y1[1][e] * g[2] + s.y1[2][e] * g[3]);
            const vec matrix = real(0.5) * (s.u[0][e] * by_u[0] + s.u[1][e] * by_u[1] + s.u[2][e] * by_u[2]);
            sum[0] += f[0] * g[0] + f[1] * vector + f[2] * matrix;
            for (int c = 1; c < 9; ++c) sum[c] += f[c < 4 ? 3 : 4] * g[c];
            const vec by_r = o[0] * (f_[0] * g[0] + f_[1] * vector + f_[2] * matrix) + f_[3] * dot(o + 1, g + 1, 3) +
                             f_[4] * dot(o + 4, g + 4, 5);
            const vec f1 = o[0] * f[1] * real(-SQRT3), f2 = o[0] * f[2];
            const vec sums[4] = {by_r, f1 * g[1] + f2 * by_u[0], f1 * g[2] + f2 * by_u[1], f1 * g[3] + f2 * by_u[2]};
            real* row = s.rows + e * 4 * VL;
            for (int n = 0; n < 4; ++n) store(row + n * VL, block ? load(row + n * VL) + sums[n] : sums[n]);
        }
        for (int c = 0; c < 9; ++c) store(own_ + c * TF + block * VL, sum[c]);
    }
    sum_lanes(s.rows, 4 * s.count);
    for (int e = 0; e < s.count; ++e)
        for (int n = 0; n < 4; ++n) s.sums[n][e] = s.rows[(4 * e + n) * VL];
}

// Ziegler-Biersack-Littmark repulsion of an atom's pairs inside their cores: half their energies, and its gradient by the edges.
double repulsion(const Surroundings& s, const Elements& elements, std::int64_t own_kind, real* gradient) {
    constexpr double amplitude[4] = {0.18175, 0.50986, 0.28022, 0.02817}, decay[4] = {3.19980, 0.94229, 0.40290, 0.20162};
    double energy = 0;
    for (int e = 0; e < s.count; ++e) {
        if (!(s.r[e] < s.core[e])) continue;
        const double r = s.r[e], d = r / s.core[e], zi = elements.charge[own_kind], zj = elements.charge[s.kind[e]];
        const double per_length = (std::pow(zi, 0.23) + std::pow(zj, 0.23)) / 0.46850, rest = 1 - d;
        const double envelope = rest * rest * rest * (1 + d * (3 + d * (6 + d * (10 + d * 15))));
        const double envelope_ = -105 * d * d * d * d * rest * rest / s.core[e];
        double screening = 0, screening_ = 0;
        for (int n = 0; n < 4; ++n) {
            const double term = amplitude[n] * std::exp(-decay[n] * per_length * r);
            screening += term;
            screening_ -= decay[n] * per_length * term;
        }
        const double half = 0.5 * 14.399645 * zi * zj / r;
        energy += half * screening * envelope;
        const double by_r = half * (screening_ * envelope + screening * envelope_ - screening * envelope / r);
        for (int c = 0; c < 3; ++c) gradient[3 * e + c] += real(by_r * s.u[c][e]);
    }
    return energy;
}

// ---- one member on a batch of structures

struct Member {
    std::int64_t n_species;
    const real *embedding, *filter, *filter_back;  // [species][F]; [3][species * K][F]; [3][F][rounded(species * K)]
    std::vector<UpdateWeights> updates;
    std::vector<MessageWeights> messages;
    HeadWeights head;

    Member(Reader r, int layers, std::int64_t n)
        : n_species(n), embedding(r.take(n * F)), filter(r.take(3 * n * K * F)), filter_back(r.take(3 * F * rounded(int(n) * K))),
          updates(read<UpdateWeights>(r, layers - 1)), messages(read<MessageWeights>(r, layers - 1)), head(r) {}

    template <class Weights>
    static std::vector<Weights> read(Reader& r, int n) {
        std::vector<Weights> weights;
        for (int i = 0; i < n; ++i) weights.emplace_back(r);
        return weights;
    }
};

struct Results {
    double *node_energy, *forces, *virial;  // (atoms), (atoms, 3), (structures, 3, 3)
};

class Evaluation {
public:
    Evaluation(const Structures& s, const Pairs& pairs, const Elements& elements, const Member& member, char* memory, int threads)
        : s(s), pairs(pairs), elements(elements), member(member), threads(threads) {
        lay_out(memory);
    }

    static std::int64_t size(const Structures& s, int layers, std::int64_t n_species, int threads) {
        const std::int64_t tiles = (s.n_atoms + T - 1) / T, node = tiles * 9 * TF;
        return ((2 * layers + 1) * node + 3 * s.n_edges) * sizeof(real) + s.n_atoms * 9 * sizeof(double) +
               threads * per_thread(s, n_species) + 64 * (threads + 8);
    }

    void run(const Results& results) {
        const int last = int(member.updates.size());
        for (int layer = 0; layer <= last; ++layer) for_tiles([&](Tile& t, int tile) { forward(layer, t, tile, results); });
        for (int layer = last; layer > 0; --layer) for_tiles([&](Tile& t, int tile) { backward(layer, t, tile); });
        for_tiles([&](Tile& t, int tile) { backward_first(t, tile, results); });
        std::fill_n(results.forces, 3 * s.n_atoms, 0.0);
        std::fill_n(results.virial, 9 * s.n_structures, 0.0);
        for (std::int64_t i = 0; i < s.n_atoms; ++i) {
            for (int c = 0; c < 9; ++c) results.virial[9 * s.structure[i] + c] += virial[9 * i + c];
            for (std::int64_t e = s.first[i]; e < s.first[i] + pairs.count[i]; ++e)
                for (int c = 0; c < 3; ++c) {
                    results.forces[3 * i + c] += gradient[3 * e + c];
                    results.forces[3 * std::int64_t(pairs.neighbour[e]) + c] -= gradient[3 * e + c];
                }
        }
    }

private:
    const Structures& s;
    const Pairs& pairs;
    const Elements& elements;
    const Member& member;
    const int threads;
    std::vector<real*> states, sources;  // by layer: [tile][9][T][F]; [atom][9][F]
    real* gradients[2];                  // by the messages an atom received, [atom][9][F]
    real* gradient;                      // by the edges, [edge][3]
    double* virial;                      // of each atom
    char* own_memory;                    // of the threads
    int width;                           // of a row of sums of the first message

    static std::int64_t row_width(std::int64_t n_species) { return rounded(int(n_species) * K) + KP; }
    static std::int64_t per_thread(const Structures& s, std::int64_t n_species) {
        const std::int64_t reals = 9 * T * row_width(n_species) + Surroundings::size(rounded(int(s.widest)));
        return (sizeof(Tile) + reals * sizeof(real) + 63) / 64 * 64;
    }

    void lay_out(char* memory) {
        const std::int64_t tiles = (s.n_atoms + T - 1) / T, node = tiles * 9 * TF;
        memory += (64 - std::uintptr_t(memory) % 64) % 64;
        const auto take = [&](std::int64_t bytes) { char* here = memory; memory += (bytes + 63) / 64 * 64; return here; };
        const auto reals = [&](std::int64_t n) { return (real*)take(n * sizeof(real)); };
        for (std::size_t layer = 0; layer <= member.updates.size(); ++layer) states.push_back(reals(node));
        for (std::size_t layer = 0; layer < member.updates.size(); ++layer) sources.push_back(reals(node));
        gradients[0] = reals(node), gradients[1] = reals(node);
        gradient = reals(3 * s.n_edges);
        virial = (double*)take(s.n_atoms * 9 * sizeof(double));
        own_memory = memory;
        width = int(row_width(member.n_species));
    }

    template <class Work>
    void for_tiles(const Work& work) {
        const int tiles = int((s.n_atoms + T - 1) / T);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
        for (int tile = 0; tile < tiles; ++tile) work(*(Tile*)memory_of_thread(), tile);
    }

    char* memory_of_thread() const {
#ifdef _OPENMP
        return own_memory + omp_get_thread_num() * per_thread(s, member.n_species);
#else
        return own_memory;
#endif
    }

    real* sums_of(Tile& t) const { return (real*)(&t + 1); }

    // Calls `work(row in the tile, atom, its surroundings)` for every atom of a tile.
    template <class Work>
    void for_atoms(Tile& t, int tile, const Work& work) const {
        Surroundings around(sums_of(t) + 9 * T * width, rounded(int(s.widest)));
        for (int row = 0; row < T && std::int64_t(tile) * T + row < s.n_atoms; ++row) {
            const std::int64_t i = std::int64_t(tile) * T + row;
            around.look(pairs, elements, s.first[i], pairs.count[i], s.species[i]);
            work(row, i, around);
        }
    }

    void forward(int layer, Tile& t, int tile, const Results& results) {
        const std::int64_t at = std::int64_t(tile) * 9 * TF;
        real* received = t.gradient;
        if (layer == 0) {
            first_message(t, tile, received);
        } else {
            std::memcpy(t.state, states[layer] + at, sizeof t.state);
            std::memset(received, 0, sizeof t.gradient);
            const MessageWeights& w = member.messages[layer - 1];
            for_atoms(t, tile, [&](int row, std::int64_t, const Surroundings& around) {
                message(w, around, sources[layer - 1], received + row * F);
            });
        }
        for (int i = 0; i < TF; i += VL) store(t.state + i, (load(t.state + i) + load(received + i)) * real(1 / SQRT2));
        for (int i = TF; i < 9 * TF; i += VL) add(t.state + i, load(received + i));
        if (std::size_t(layer) < member.updates.size()) {
            std::memcpy(states[layer] + at, t.state, sizeof t.state);
            update(member.updates[layer], t, states[layer + 1] + at);
            source(member.messages[layer], t, states[layer + 1] + at, sources[layer] + at);
            return;
        }
        real raw[T];
        ::head(member.head, t, raw);
        for (int row = 0; row < T && std::int64_t(tile) * T + row < s.n_atoms; ++row) {
            const std::int64_t i = std::int64_t(tile) * T + row;
            results.node_energy[i] = double(raw[row]) * elements.scale + elements.e0[s.species[i]];
        }
        hand_out(t, gradients[layer % 2] + at);
    }

    // From tile.gradient to what atoms read of one another: x was divided by √2 after it received its message.
    static void hand_out(const Tile& t, real* out) {
        for (int c = 0; c < 9; ++c)
            for (int i = 0; i < TF; i += VL)
                store(out + i / F * 9 * F + c * F + i % F, load(t.gradient + c * TF + i) * real(c ? 1 : 1 / SQRT2));
    }
    static void take_back(const real* in, Tile& t) {
        for (int c = 0; c < 9; ++c)
            for (int i = 0; i < TF; i += VL) store(t.gradient + c * TF + i, load(in + i / F * 9 * F + c * F + i % F));
    }

    void first_message(Tile& t, int tile, real* received) {
        real* sums = sums_of(t);
        std::memset(sums, 0, 9 * T * width * sizeof(real));
        std::memset(t.state, 0, sizeof t.state);
        for_atoms(t, tile, [&](int row, std::int64_t i, const Surroundings& around) {
            std::fill_n(gradient + 3 * s.first[i], 3 * pairs.count[i], real(0));
            std::memcpy(t.state + row * F, member.embedding + s.species[i] * F, F * sizeof(real));
            first_sums(around, width, sums + row * width);
        });
        const int columns = int(member.n_species) * K;
        constexpr int begin[4] = {0, 1, 4, 9};
        for (int rank = 0; rank < 3; ++rank)
            multiply<false>((begin[rank + 1] - begin[rank]) * T, columns, F, sums + begin[rank] * T * width, width,
                            member.filter + rank * columns * F, received + begin[rank] * TF, F);
    }

    void backward(int layer, Tile& t, int tile) {
        const std::int64_t at = std::int64_t(tile) * 9 * TF;
        const MessageWeights& w = member.messages[layer - 1];
        const real* received = gradients[layer % 2];
        std::memset(t.own_, 0, sizeof t.own_);
        for_atoms(t, tile, [&](int row, std::int64_t i, const Surroundings& around) {
            pull_back_message(w, around, sources[layer - 1] + i * 9 * F, received, t.own_ + row * F);
            around.by_vector(real(elements.scale), gradient + 3 * s.first[i]);
        });
        std::memcpy(t.state, states[layer - 1] + at, sizeof t.state);
        update(member.updates[layer - 1], t, t.mixed);
        source_gates(w, t, t.mixed);
        take_back(received + at, t);
        pull_back_source(w, t, t.mixed);
        pull_back_update(member.updates[layer - 1], t);
        hand_out(t, gradients[(layer - 1) % 2] + at);
    }

    void backward_first(Tile& t, int tile, const Results& results) {
        real* sums = sums_of(t);
        take_back(gradients[0] + std::int64_t(tile) * 9 * TF, t);
        const int columns = rounded(int(member.n_species) * K);
        constexpr int begin[4] = {0, 1, 4, 9};
        for (int rank = 0; rank < 3; ++rank)
            multiply<false>((begin[rank + 1] - begin[rank]) * T, F, columns, t.gradient + begin[rank] * TF, F,
                            member.filter_back + rank * F * columns, sums + begin[rank] * T * width, width);
        for_atoms(t, tile, [&](int row, std::int64_t i, const Surroundings& around) {
            real* own = gradient + 3 * s.first[i];
            pull_back_first(around, int(member.n_species), width, sums + row * width);
            around.by_vector(real(elements.scale), own);
            if (around.pressed) results.node_energy[i] += repulsion(around, elements, s.species[i], own);
            const std::int64_t e0 = s.first[i];
            const real* vectors[3] = {pairs.x + e0, pairs.y + e0, pairs.z + e0};
            std::fill_n(virial + 9 * i, 9, 0.0);
            for (int e = 0; e < around.count; ++e)
                for (int a = 0; a < 3; ++a)
                    for (int b = 0; b < 3; ++b) virial[9 * i + 3 * a + b] += double(vectors[a][e]) * own[3 * e + b];
        });
    }
};

std::uint64_t mixed(std::uint64_t x) {  // finaliser of splitmix64
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

}  // namespace

// ---- what kernel.py calls

extern "C" {

std::int64_t lanes() { return VL; }

// Where each atom's edges begin. Returns the most edges of an atom, or -1 if some edge has no reverse or the order is wrong.
std::int64_t index_edges(std::int64_t n_atoms, std::int64_t n_edges, const std::int64_t* centre, const std::int64_t* neighbour,
                         const double* shift, std::int64_t* first) {
    std::uint64_t balance = 0;
    std::int64_t next = 0, widest = 0;
    for (std::int64_t e = 0; e < n_edges; ++e) {
        if (e > 0 && centre[e] < centre[e - 1]) return -1;
        while (next <= centre[e]) first[next++] = e;
        std::uint64_t there = 0, back = 0;
        for (int c = 0; c < 3; ++c) {
            const auto n = std::int64_t(shift[3 * e + c]);
            there = mixed(there + std::uint64_t(n) + 1);
            back = mixed(back + std::uint64_t(-n) + 1);
        }
        balance += mixed(mixed(there + std::uint64_t(centre[e])) + std::uint64_t(neighbour[e]));
        balance -= mixed(mixed(back + std::uint64_t(neighbour[e])) + std::uint64_t(centre[e]));
    }
    while (next <= n_atoms) first[next++] = n_edges;
    for (std::int64_t i = 0; i < n_atoms; ++i) widest = std::max(widest, first[i + 1] - first[i]);
    return balance ? -1 : widest;
}

void find_pairs(const Structures* s, double cutoff, int threads, const Pairs* pairs) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (std::int64_t i = 0; i < s->n_atoms; ++i) find_pairs(*s, cutoff, i, *pairs);
}

std::int64_t workspace_size(const Structures* s, int layers, std::int64_t n_species, int threads) {
    return Evaluation::size(*s, layers, n_species, threads);
}

void evaluate(const Structures* s, const Pairs* pairs, const Elements* elements, const real* weights, int layers, char* workspace,
              int threads, const Results* results) {
    const Member member({weights}, layers, elements->n);
    Evaluation(*s, *pairs, *elements, member, workspace, threads).run(*results);
}
}

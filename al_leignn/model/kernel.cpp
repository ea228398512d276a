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
// NaN must come out where NaN goes in, so comparisons are written such that NaN counts as within the cutoff.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

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

// What neighbours read of x and y in `state`: s, g⊙v and h⊙T, atom by atom.
void source(const MessageWeights& w, Tile& t, const real* state, real* out) {
    w.source.hidden(state, t.source_activation, t.source_slope);
    w.source.output(t.source_activation, t.source_gates);
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

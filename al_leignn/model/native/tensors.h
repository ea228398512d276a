// Products of the vector and the matrix of one atom, for as many features at once as a processor's vector has lanes.

#pragma once

#include "vectors.h"

namespace {

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

}  // namespace

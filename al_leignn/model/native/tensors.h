// Products of the vector, the matrix and the rank-3 tensor of one atom, for as many features at once as a processor's vector has
// lanes.

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

struct Cube {
    vec xxx, yyy, zzz, xxy, xxz, xyy, yyz, xzz, yzz, xyz;
};

// Seven components in the orthonormal basis xyz, z(x²-y²), x(x²-3y²), y(3x²-y²), z(2z²-3x²-3y²), x(4z²-x²-y²), y(4z²-x²-y²)
// as a symmetric tensor; `project` is the adjoint.
INLINE Cube expand_cube(const vec* o) {
    const real three(3), four(4);
    const vec a = o[0] * real(1 / SQRT6), b = o[1] * real(1 / SQRT6), c = o[2] * real(0.5), d = o[3] * real(0.5);
    const vec e = o[4] * real(1 / (SQRT2 * SQRT5));
    const vec f = o[5] * real(0.5 / (SQRT3 * SQRT5)), g = o[6] * real(0.5 / (SQRT3 * SQRT5));
    return {c - three * f, -d - three * g, e + e, d - g, b - e, -c - f, -b - e, four * f, four * g, a};
}
INLINE void project(const Cube& m, vec* o) {
    const real three(3), four(4);
    o[0] = m.xyz * real(SQRT6);
    o[1] = (m.xxz - m.yyz) * real(SQRT6 / 2);
    o[2] = (m.xxx - three * m.xyy) * real(0.5);
    o[3] = (three * m.xxy - m.yyy) * real(0.5);
    o[4] = (m.zzz + m.zzz - three * (m.xxz + m.yyz)) * real(1 / (SQRT2 * SQRT5));
    o[5] = (four * m.xzz - m.xxx - m.xyy) * real(1.5 / (SQRT3 * SQRT5));
    o[6] = (four * m.yzz - m.xxy - m.yyy) * real(1.5 / (SQRT3 * SQRT5));
}
// The matrices o_x, o_y and o_z.
struct Slices {
    Symmetric of[3];
    INLINE explicit Slices(const Cube& o)
        : of{{o.xxx, o.xyy, o.xzz, o.xxy, o.xyz, o.xxz},
             {o.xxy, o.yyy, o.yzz, o.xyy, o.yyz, o.xyz},
             {o.xxz, o.yyz, o.zzz, o.xyz, o.yzz, o.xzz}} {}
};
INLINE vec dot(const Symmetric& a, const Symmetric& b) {
    return a.xx * b.xx + a.yy * b.yy + a.zz * b.zz + real(2) * (a.xy * b.xy + a.yz * b.yz + a.xz * b.xz);
}
INLINE Symmetric combine(const Slices& o, vec x, vec y, vec z) {
    const Symmetric &a = o.of[0], &b = o.of[1], &c = o.of[2];
    return {x * a.xx + y * b.xx + z * c.xx, x * a.yy + y * b.yy + z * c.yy, x * a.zz + y * b.zz + z * c.zz,
            x * a.xy + y * b.xy + z * c.xy, x * a.yz + y * b.yz + z * c.yz, x * a.xz + y * b.xz + z * c.xz};
}
// o_ijk t_jk and o_ijk v_k and o_ikl o_jkl
INLINE void apply(const Slices& o, const Symmetric& t, vec* out) {
    for (int i = 0; i < 3; ++i) out[i] = dot(o.of[i], t);
}
INLINE Symmetric apply(const Slices& o, const vec* v) { return combine(o, v[0], v[1], v[2]); }
INLINE Symmetric square(const Slices& o) {
    return {dot(o.of[0], o.of[0]), dot(o.of[1], o.of[1]), dot(o.of[2], o.of[2]),
            dot(o.of[0], o.of[1]), dot(o.of[1], o.of[2]), dot(o.of[0], o.of[2])};
}
// The symmetric part of three matrices, one for each first index.
INLINE Cube symmetrised(const Symmetric& x, const Symmetric& y, const Symmetric& z) {
    const real third(1.0 / 3), two(2);
    return {x.xx, y.yy, z.zz,
            third * (two * x.xy + y.xx), third * (two * x.xz + z.xx), third * (x.yy + two * y.xy),
            third * (two * y.yz + z.yy), third * (x.zz + two * z.xz), third * (y.zz + two * z.yz),
            third * (x.yz + y.xz + z.xy)};
}
INLINE Symmetric scaled(const Symmetric& m, vec by) {
    return {m.xx * by, m.yy * by, m.zz * by, m.xy * by, m.yz * by, m.xz * by};
}
// Gradients by o of g·(o:t) (the same as of g:(o·v), with t and v exchanged) and of g:(o:o)/2
INLINE Cube outer(const Symmetric& t, const vec* v) { return symmetrised(scaled(t, v[0]), scaled(t, v[1]), scaled(t, v[2])); }
INLINE Cube half_square_gradient(const Symmetric& g, const Slices& o) {
    return symmetrised(combine(o, g.xx, g.xy, g.xz), combine(o, g.xy, g.yy, g.yz), combine(o, g.xz, g.yz, g.zz));
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

// Products of an atom's own vector q[0..2], matrix q[3..7] and rank-3 tensor q[8..14].
struct Products {
    static constexpr double TV = SQRT3 / SQRT5, OT = SQRT3 / SQRT7, TT = 2 * SQRT3 / SQRT7, OO = 5 / SQRT14, OV = SQRT5 / SQRT7;
    vec f[3], d[15];               // damping factors; damped components
    vec tv[3], ot[3], tt[5], oo[5];  // t v, o:t and the traceless parts of t t and o:o
    Symmetric t;
    Slices o;

    INLINE explicit Products(const vec* q) : o(damped(q)) {
        t = expand(d + 3);
        apply(t, d, tv);
        apply(o, t, ot);
        project(half_anticommutator(t, t), tt);
        project(square(o), oo);
        for (int c = 0; c < 3; ++c) tv[c] *= real(TV), ot[c] *= real(OT);
        for (int c = 0; c < 5; ++c) tt[c] *= real(TT), oo[c] *= real(OO);
    }
    INLINE void invariants(vec* out) const {
        out[0] = dot(d, d, 3) * real(1 / SQRT3);
        out[1] = dot(d + 3, d + 3, 5) * real(1 / SQRT5);
        out[2] = dot(d + 8, d + 8, 7) * real(1 / SQRT7);
        out[3] = f[0] * dot(d, tv, 3) * real(1 / SQRT3);
        out[4] = f[0] * dot(d, ot, 3) * real(1 / SQRT3);
        out[5] = f[1] * dot(d + 3, tt, 5) * real(1 / SQRT5);
        out[6] = f[1] * dot(d + 3, oo, 5) * real(1 / SQRT5);
    }
    // The traceless part of v⊗v, and o·v.
    INLINE void by_vector(vec* vv, vec* ov) const {
        project(half_outer(d, d), vv);
        project(apply(o, d), ov);
        for (int c = 0; c < 5; ++c) ov[c] *= real(OV);
    }

    // Gradients by the products, which `pull_back` changes; those of `by_vector` may be missing.
    struct Gradients {
        vec tv[3], ot[3], tt[5], oo[5], vv[5], ov[5];
    };

    // Gradient by q.
    template <bool with_vector>
    INLINE void pull_back(const vec* q, const vec* invariants_, Gradients& g, vec* out) const {
        const vec by_tv = invariants_[3] * real(1 / SQRT3), by_ot = invariants_[4] * real(1 / SQRT3);
        const vec by_tt = invariants_[5] * real(1 / SQRT5), by_oo = invariants_[6] * real(1 / SQRT5);
        const vec square[3] = {
            invariants_[0] * real(2 / SQRT3), invariants_[1] * real(2 / SQRT5), invariants_[2] * real(2 / SQRT7)};
        const vec f_[3] = {
            by_tv * dot(d, tv, 3) + by_ot * dot(d, ot, 3), by_tt * dot(d + 3, tt, 5) + by_oo * dot(d + 3, oo, 5), {}};
        vec d_[15], term[7];
        for (int c = 0; c < 3; ++c) {
            d_[c] = square[0] * d[c] + f[0] * (by_tv * tv[c] + by_ot * ot[c]);
            g.tv[c] = (g.tv[c] + by_tv * f[0] * d[c]) * real(TV);
            g.ot[c] = (g.ot[c] + by_ot * f[0] * d[c]) * real(OT);
        }
        for (int c = 0; c < 5; ++c) {
            d_[3 + c] = square[1] * d[3 + c] + f[1] * (by_tt * tt[c] + by_oo * oo[c]);
            g.tt[c] = (g.tt[c] + by_tt * f[1] * d[3 + c]) * real(2 * TT);
            g.oo[c] = (g.oo[c] + by_oo * f[1] * d[3 + c]) * real(2 * OO);
        }
        for (int c = 8; c < 15; ++c) d_[c] = square[2] * d[c];

        apply(t, g.tv, term);
        for (int c = 0; c < 3; ++c) d_[c] += term[c];
        project(half_outer(g.tv, d), term);
        for (int c = 0; c < 5; ++c) d_[3 + c] += term[c];
        project(apply(o, g.ot), term);
        for (int c = 0; c < 5; ++c) d_[3 + c] += term[c];
        project(half_anticommutator(expand(g.tt), t), term);
        for (int c = 0; c < 5; ++c) d_[3 + c] += term[c];
        project(outer(t, g.ot), term);
        for (int c = 0; c < 7; ++c) d_[8 + c] += term[c];
        project(half_square_gradient(expand(g.oo), o), term);
        for (int c = 0; c < 7; ++c) d_[8 + c] += term[c];
        if (with_vector) {
            apply(expand(g.vv), d, term);
            for (int c = 0; c < 3; ++c) d_[c] += real(2) * term[c];
            const Symmetric ov_ = scaled(expand(g.ov), all(OV));
            apply(o, ov_, term);
            for (int c = 0; c < 3; ++c) d_[c] += term[c];
            project(outer(ov_, d), term);
            for (int c = 0; c < 7; ++c) d_[8 + c] += term[c];
        }
        for (int c = 0; c < 15; ++c) out[c] = vec{};
        for (int rank = 0; rank < 3; ++rank) {
            const int begin = FIRST[rank];
            pull_back_damping(q + begin, f[rank], d_ + begin, f_[rank], FIRST[rank + 1] - begin, out + begin);
        }
    }

private:
    INLINE Cube damped(const vec* q) {
        for (int rank = 0; rank < 3; ++rank) {
            const int begin = FIRST[rank], end = FIRST[rank + 1];
            f[rank] = damping(q + begin, end - begin);
            for (int c = begin; c < end; ++c) d[c] = q[c] * f[rank];
        }
        return expand_cube(d + 8);
    }
};

}  // namespace

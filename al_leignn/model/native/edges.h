// What happens on edges: their basis, messages and the repulsion, each with its backward pass.

#pragma once

#include <algorithm>

#include "nodes.h"

namespace {

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
    real *y1[3], *y2[5], *y3[7];               // harmonics
    real *steep[3], *flat[3], *bend[16];       // √15 u, √5 u and squares of u, of which their derivatives are made
    real *radial, *slope;                      // [K][room]: R_k and dR_k/dr
    real *rows;                                // [room][max(KP, 4 VL)], free
    real *sums[4];                             // derivatives by r and by u
    bool pressed;                              // some pair is inside its core

    static std::int64_t size(std::int64_t room) { return room * (5 + 37 + 2 * K + 4 + std::max(KP, 4 * VL)); }

    Surroundings(real* memory, int room_) : room(room_) {
        const auto take = [&](int n) { real* here = memory; memory += std::int64_t(n) * room; return here; };
        rows = take(std::max(KP, 4 * VL));
        radial = take(K), slope = take(K);
        for (auto& p : u) p = take(1);
        for (auto& p : y1) p = take(1);
        for (auto& p : y2) p = take(1);
        for (auto& p : y3) p = take(1);
        for (auto& p : steep) p = take(1);
        for (auto& p : flat) p = take(1);
        for (auto& p : bend) p = take(1);
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

        cubic(e, x, y, z);

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

    INLINE void cubic(int e, vec x, vec y, vec z) {
        const real c0(SQRT105), c1(SQRT105 / 2), c2(SQRT70 / 4), c4(SQRT7 / 2), c5(SQRT42 / 4);
        const vec xx = x * x, yy = y * y, zz = z * z, xy = x * y, yz = y * z, xz = x * z, rest = xx + yy, four = real(4) * zz;
        const vec harmonic[7] = {c0 * xy * z,
                                 c1 * z * (xx - yy),
                                 c2 * x * (xx - real(3) * yy),
                                 c2 * y * (real(3) * xx - yy),
                                 c4 * z * (real(2) * zz - real(3) * rest),
                                 c5 * x * (four - rest),
                                 c5 * y * (four - rest)};
        const vec squares[16] = {c0 * yz,
                                 c0 * xz,
                                 c0 * xy,
                                 real(2) * c1 * xz,
                                 real(-2) * c1 * yz,
                                 c1 * (xx - yy),
                                 real(3) * c2 * (xx - yy),
                                 real(6) * c2 * xy,
                                 real(-6) * c4 * xz,
                                 real(-6) * c4 * yz,
                                 real(3) * c4 * (real(2) * zz - rest),
                                 c5 * (four - real(2) * xx - rest),
                                 real(-2) * c5 * xy,
                                 c5 * (four - rest - real(2) * yy),
                                 real(8) * c5 * xz,
                                 real(8) * c5 * yz};
        for (int c = 0; c < 7; ++c) store(y3[c] + e, harmonic[c]);
        for (int c = 0; c < 16; ++c) store(bend[c] + e, squares[c]);
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

// Gradient by u of Y⁽³⁾(u)·g, from the squares that `cubic` leaves.
template <class number>
INLINE void cube_by_u(const number* b, const vec* g, vec* out) {
    out[0] = b[0] * g[0] + b[3] * g[1] + b[6] * g[2] + b[7] * g[3] + b[8] * g[4] + b[11] * g[5] + b[12] * g[6];
    out[1] = b[1] * g[0] + b[4] * g[1] - b[7] * g[2] + b[6] * g[3] + b[9] * g[4] + b[12] * g[5] + b[13] * g[6];
    out[2] = b[2] * g[0] + b[5] * g[1] + b[10] * g[4] + b[14] * g[5] + b[15] * g[6];
}

// First message: sums over neighbours of each species, out[component][.][species * K + k] with rows of `width`.
void first_sums(const Surroundings& s, int width, real* out) {
    for (int e = 0; e < s.count; ++e) {
        real* row = s.rows + e * KP;
        for (int k = 0; k < KP; ++k) row[k] = k < K ? s.radial[k * s.room + e] : real(0);
        vec y[NODE] = {all(1)};
        for (int c = 0; c < 3; ++c) y[1 + c] = all(s.y1[c][e]);
        for (int c = 0; c < 5; ++c) y[4 + c] = all(s.y2[c][e]);
        for (int c = 0; c < 7; ++c) y[9 + c] = all(s.y3[c][e]);
        for (int k = 0; k < KP; k += VL)
            for (int c = 0; c < NODE; ++c) add(out + std::int64_t(c) * T * width + s.kind[e] * K + k, y[c] * load(row + k));
    }
}

// Backward of it, into s.sums, all edges of a vector at once.
void pull_back_first(const Surroundings& s, int n_species, int width, const real* gradient) {
    for (int e = 0; e < s.filled; e += VL) {
        vec sums[4] = {};
        vec y1[3], y2[5], y3[7], u15[3], u5[3], bend[16];
        for (int c = 0; c < 3; ++c)
            y1[c] = load(s.y1[c] + e), u15[c] = load(s.steep[c] + e), u5[c] = load(s.flat[c] + e);
        for (int c = 0; c < 5; ++c) y2[c] = load(s.y2[c] + e);
        for (int c = 0; c < 7; ++c) y3[c] = load(s.y3[c] + e);
        for (int c = 0; c < 16; ++c) bend[c] = load(s.bend[c] + e);
        for (int kind = 0; kind < n_species; ++kind) {
            vec mask;
            for (int i = 0; i < VL; ++i) mask[i] = e + i < s.count && s.kind[e + i] == kind;
            vec value[NODE] = {}, change[NODE] = {};
            for (int k = 0; k < K; ++k) {
                const vec radial = load(s.radial + k * s.room + e), slope = load(s.slope + k * s.room + e);
                for (int c = 0; c < NODE; ++c) {
                    const real g = gradient[std::int64_t(c) * T * width + kind * K + k];
                    value[c] += radial * g;
                    change[c] += slope * g;
                }
            }
            vec by_u2[3], by_u3[3];
            matrix_by_u(u15, u5, value + 4, by_u2);
            cube_by_u(bend, value + 9, by_u3);
            sums[0] += mask * (change[0] + dot(y1, change + 1, 3) + dot(y2, change + 4, 5) + dot(y3, change + 9, 7));
            for (int c = 0; c < 3; ++c) sums[1 + c] += mask * (real(SQRT3) * value[1 + c] + by_u2[c] + by_u3[c]);
        }
        for (int n = 0; n < 4; ++n) store(s.sums[n] + e, sums[n]);
    }
}

// Message to an atom from what its neighbours offer, `sources` [atom][READ][F]; into rows of F of a tile.
void message(const MessageWeights& w, const Surroundings& s, const real* sources, real* out) {
    for (int block = 0; block < F / VL; ++block) {
        vec sum[NODE] = {};
        for (int e = 0; e < s.count; ++e) {
            const real* from = sources + std::int64_t(s.neighbour[e]) * READ * F + block * VL;
            const real* filter = w.filter + block * K * FILTERS * VL;
            vec f[FILTERS] = {};
            for (int k = 0; k < K; ++k, filter += FILTERS * VL) {
                const real radial = s.radial[k * s.room + e];
                for (int n = 0; n < FILTERS; ++n) f[n] += radial * load(filter + n * VL);
            }
            for (int rank = 0; rank < 4; ++rank) f[rank] *= load(from);
            sum[0] += f[0];
            for (int c = 0; c < 3; ++c) sum[1 + c] += f[1] * s.y1[c][e] + f[4] * load(from + (1 + c) * F);
            for (int c = 0; c < 5; ++c) sum[4 + c] += f[2] * s.y2[c][e] + f[5] * load(from + (4 + c) * F);
            for (int c = 0; c < 7; ++c) sum[9 + c] += f[3] * s.y3[c][e];
        }
        for (int c = 0; c < NODE; ++c) store(out + c * TF + block * VL, sum[c]);
    }
}

// Backward of `message` for what this atom offered its neighbours (`own`, [READ][F]): the gradient by it, into rows of a tile,
// and s.sums. `gradients` [atom][NODE][F] are those by the messages that neighbours received, along edges that point here.
void pull_back_message(const MessageWeights& w, const Surroundings& s, const real* own, const real* gradients, real* own_) {
    for (int block = 0; block < F / VL; ++block) {
        vec sum[READ] = {}, o[READ];
        for (int c = 0; c < READ; ++c) o[c] = load(own + c * F + block * VL);
        for (int e = 0; e < s.count; ++e) {
            const real* from = gradients + std::int64_t(s.neighbour[e]) * NODE * F + block * VL;
            const real* filter = w.filter + block * K * FILTERS * VL;
            vec f[FILTERS] = {}, f_[FILTERS] = {}, g[NODE];
            for (int k = 0; k < K; ++k, filter += FILTERS * VL) {
                const real radial = s.radial[k * s.room + e], slope = s.slope[k * s.room + e];
                for (int n = 0; n < FILTERS; ++n) {
                    const vec weight = load(filter + n * VL);
                    f[n] += radial * weight;
                    f_[n] += slope * weight;
                }
            }
            for (int c = 0; c < NODE; ++c) g[c] = load(from + c * F);
            real u15[3], u5[3], bend[16];
            for (int c = 0; c < 3; ++c) u15[c] = s.steep[c][e], u5[c] = s.flat[c][e];
            for (int c = 0; c < 16; ++c) bend[c] = s.bend[c][e];
            vec by_u2[3], by_u3[3];
            matrix_by_u(u15, u5, g + 4, by_u2);
            cube_by_u(bend, g + 9, by_u3);
            // The edge points here: odd ranks change sign. Harmonics of rank l are homogeneous, so u·∇Y = l Y.
            const vec vector = -(s.y1[0][e] * g[1] + s.y1[1][e] * g[2] + s.y1[2][e] * g[3]);
            const vec matrix = real(0.5) * (s.u[0][e] * by_u2[0] + s.u[1][e] * by_u2[1] + s.u[2][e] * by_u2[2]);
            const vec cube = real(-1.0 / 3) * (s.u[0][e] * by_u3[0] + s.u[1][e] * by_u3[1] + s.u[2][e] * by_u3[2]);
            sum[0] += f[0] * g[0] + f[1] * vector + f[2] * matrix + f[3] * cube;
            for (int c = 1; c < READ; ++c) sum[c] += f[c < 4 ? 4 : 5] * g[c];
            const vec by_r = o[0] * (f_[0] * g[0] + f_[1] * vector + f_[2] * matrix + f_[3] * cube) +
                             f_[4] * dot(o + 1, g + 1, 3) + f_[5] * dot(o + 4, g + 4, 5);
            const vec f1 = o[0] * f[1] * real(-SQRT3), f2 = o[0] * f[2], f3 = -o[0] * f[3];
            vec sums[4] = {by_r};
            for (int c = 0; c < 3; ++c) sums[1 + c] = f1 * g[1 + c] + f2 * by_u2[c] + f3 * by_u3[c];
            real* row = s.rows + e * 4 * VL;
            for (int n = 0; n < 4; ++n) store(row + n * VL, block ? load(row + n * VL) + sums[n] : sums[n]);
        }
        for (int c = 0; c < READ; ++c) store(own_ + c * TF + block * VL, sum[c]);
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

}  // namespace

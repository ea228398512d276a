// Vectors of the processor at hand, the functions of them that the network needs, and products of matrices.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

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
constexpr int NODE = 16;              // components of an atom's features: scalar, vector, matrix, rank-3 tensor
constexpr int READ = 9;               // those that neighbours read: scalar, vector, matrix
constexpr int FIRST[4] = {0, 3, 8, 15};  // first component of each rank among an atom's tensors

constexpr double PI = 3.14159265358979323846, SQRT2 = 1.41421356237309504880, SQRT3 = 1.73205080756887729353;
constexpr double SQRT5 = 2.23606797749978969641, SQRT6 = 2.44948974278317809820, SQRT7 = 2.64575131106459059050;
constexpr double SQRT14 = SQRT2 * SQRT7, SQRT42 = SQRT6 * SQRT7, SQRT70 = SQRT14 * SQRT5, SQRT105 = SQRT3 * SQRT5 * SQRT7;

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

}  // namespace

// Certified ranks as in inertia.py, which derives the bounds: a map per lane of a vector register.
//
// Everything is laid out [row][column] in vectors that hold that entry of LANES maps, and worked on
// in tiles of TILE x TILE entries, which stay in registers.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>

#if defined(__AVX512F__)
constexpr int LANES = 8;
#elif defined(__AVX__)
constexpr int LANES = 4;
#else
constexpr int LANES = 2;
#endif
constexpr int TILE = 4;
constexpr int64_t UNDECIDED = -1;

typedef double Vector __attribute__((vector_size(LANES * 8), aligned(LANES * 8)));
typedef int64_t Integers __attribute__((vector_size(LANES * 8), aligned(LANES * 8)));
typedef float Floats __attribute__((vector_size(LANES * 4), aligned(4)));

struct Bounds {
    double above, below, slack, error, smallest, largest;
};

static inline Vector abs_of(Vector x) { return x < 0 ? -x : x; }
static inline Vector root(Vector x) {
    for (int lane = 0; lane < LANES; lane++) x[lane] = std::sqrt(x[lane]);
    return x;
}

// Swaps the blocks of HALF x HALF entries off the diagonal: all halves together transpose.
template <int HALF>
static inline void transpose(Vector* tile) {
    Integers first, second;
    for (int c = 0; c < LANES; c++) {
        first[c] = c & HALF ? LANES + c - HALF : c;
        second[c] = c & HALF ? LANES + c : c + HALF;
    }
#pragma GCC unroll 8
    for (int r = 0; r < LANES; r++) {
        if (r & HALF) continue;
        const Vector a = tile[r], b = tile[r + HALF];
        tile[r] = __builtin_shuffle(a, b, first);
        tile[r + HALF] = __builtin_shuffle(a, b, second);
    }
    if constexpr (HALF > 1) transpose<HALF / 2>(tile);
}

class Group {
    const int rows, columns, padded;  // m <= N, and m rounded up to whole tiles
    Vector *const a, *const gram, *const l, *const u;  // [padded, N], then [padded, padded] each

   public:
    Group(int rows, int columns)
        : rows(rows),
          columns(columns),
          padded((rows + TILE - 1) / TILE * TILE),
          a((Vector*)std::aligned_alloc(sizeof(Vector), size() * sizeof(Vector))),
          gram(a + padded * columns),
          l(gram + padded * padded),
          u(l + padded * padded) {
        std::fill_n(a, size(), Vector{});  // the rows that pad stay zero
    }
    Group(const Group&) = delete;
    ~Group() { std::free(a); }

    int size() const { return padded * (columns + 3 * padded); }

    // Reads LANES maps; `turned` ones are [N, m] in memory.
    void load(const float* const* maps, bool turned) {
        const int entries = rows * columns;
        auto place = [&](int e) { return turned ? e % rows * columns + e / rows : e; };
        int e = 0;
        for (; e + LANES <= entries; e += LANES) {
            Vector tile[LANES];
#pragma GCC unroll 8
            for (int lane = 0; lane < LANES; lane++)
                tile[lane] = __builtin_convertvector(*(const Floats*)(maps[lane] + e), Vector);
            transpose<LANES / 2>(tile);
#pragma GCC unroll 8
            for (int i = 0; i < LANES; i++) a[place(e + i)] = tile[i];
        }
        for (; e < entries; e++)
            for (int lane = 0; lane < LANES; lane++) a[place(e)][lane] = maps[lane][e];
    }

    void multiply() {
        for (int i = 0; i < padded; i += TILE)
            for (int j = 0; j <= i; j += TILE) {
                Vector sum[TILE][TILE] = {};
                const Vector *left = &a[i * columns], *right = &a[j * columns];
                for (int k = 0; k < columns; k++)
#pragma GCC unroll 4
                    for (int p = 0; p < TILE; p++)
#pragma GCC unroll 4
                        for (int q = 0; q < TILE; q++)
                            sum[p][q] += left[p * columns + k] * right[q * columns + k];
                for (int p = 0; p < TILE; p++)
                    for (int q = 0; q < TILE; q++) gram[(i + p) * padded + j + q] = sum[p][q];
            }
    }

    // Counts the positive eigenvalues of gram - shift I; UNDECIDED where rounding may matter.
    Integers positive_pivots(Vector shift, Vector trace, Vector allowed) {
        Integers count = {};
        Vector growth = trace;
        for (int j = 0; j < padded; j += TILE) {
            Vector inverse[TILE] = {};
            for (int i = j; i < padded; i += TILE) {
                Vector rest[TILE][TILE];
#pragma GCC unroll 4
                for (int p = 0; p < TILE; p++)
#pragma GCC unroll 4
                    for (int q = 0; q < TILE; q++) rest[p][q] = gram[(i + p) * padded + j + q];
                if (i == j)
                    for (int p = 0; p < TILE; p++) rest[p][p] -= shift;
                const Vector *left = &l[i * padded], *right = &u[j * padded];
                for (int k = 0; k < j; k++)
#pragma GCC unroll 4
                    for (int p = 0; p < TILE; p++)
#pragma GCC unroll 4
                        for (int q = 0; q < TILE; q++)
                            rest[p][q] -= left[p * padded + k] * right[q * padded + k];
#pragma GCC unroll 4
                for (int q = 0; q < TILE; q++) {
                    if (i == j) {
                        inverse[q] = 1.0 / rest[q][q];
                        count -= rest[q][q] > 0;  // true is -1
                        growth += abs_of(rest[q][q]);
                    }
                    for (int p = i == j ? q + 1 : 0; p < TILE; p++) {
                        const Vector above = rest[p][q], factor = above * inverse[q];
                        growth += abs_of(above * factor);
                        u[(i + p) * padded + j + q] = above;
                        l[(i + p) * padded + j + q] = factor;
                    }
                    for (int r = q + 1; r < TILE; r++)
                        for (int p = i == j ? r : 0; p < TILE; p++)
                            rest[p][r] -= l[(i + p) * padded + j + q] * u[(j + r) * padded + j + q];
                }
            }
        }
        const Integers unknown = Integers{} + UNDECIDED;
        return growth < allowed ? count : unknown;
    }

    Integers ranks(const Bounds& bounds) {
        Vector trace = {}, square = {};
        Integers nonzero_rows = {}, nonzero_columns = {};
        for (int i = 0; i < rows; i++) {
            const Vector diagonal = gram[i * padded + i];
            trace += diagonal;
            nonzero_rows -= diagonal > 0;
            square += diagonal * diagonal;
            for (int j = 0; j < i; j++)
                square += 2 * gram[i * padded + j] * gram[i * padded + j];
        }
        for (int j = 0; j < columns; j++) {
            Integers any = {};
            for (int i = 0; i < rows; i++) any |= a[i * columns + j] != 0;
            nonzero_columns -= any;
        }
        const Integers limit = nonzero_rows < nonzero_columns ? nonzero_rows : nonzero_columns;
        const double slack = bounds.slack;
        const Vector above = bounds.above * root(square), below = bounds.below * square / trace;
        const Integers least =
            positive_pivots(above * (1 + slack), trace, above * slack / bounds.error);
        Integers decided = least == limit;
        bool all = true;
        for (int lane = 0; lane < LANES; lane++) all = all && decided[lane];
        if (!all)
            decided |= least == positive_pivots(below * (1 - slack), trace,
                                                below * slack / bounds.error);
        decided &= (trace > bounds.smallest) & (trace < bounds.largest);
        const Integers unknown = Integers{} + UNDECIDED, zero = {};
        return decided ? least : (trace == 0 ? zero : unknown);
    }
};

// maps [count, height, width] -> ranks [count], UNDECIDED where not proven.
extern "C" void certified_ranks(const float* maps, int64_t count, int height, int width,
                                const double* bounds, int64_t* ranks) {
    const bool turned = height > width;
    Group group(turned ? width : height, turned ? height : width);
    for (int64_t first = 0; first < count; first += LANES) {
        const float* lanes[LANES];  // the last map stands in for those past the end
        for (int lane = 0; lane < LANES; lane++)
            lanes[lane] = maps + std::min<int64_t>(first + lane, count - 1) * height * width;
        group.load(lanes, turned);
        group.multiply();
        const Integers found = group.ranks(*(const Bounds*)bounds);
        for (int lane = 0; lane < LANES && first + lane < count; lane++)
            ranks[first + lane] = found[lane];
    }
}

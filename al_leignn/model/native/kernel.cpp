// Energies, forces and virials of preset `local` on a CPU: forward and backward passes written by hand.
//
// docs/model.md has the equations; names follow it. vectors.h, tensors.h, nodes.h and edges.h hold the parts. ../build.py compiles
// them once for each precision (REAL), number of features (FEATURES) and of radial functions (RADIAL); ../kernel.py lays out
// the weights and checks the results against the network itself.
//
// Work is done in tiles of T atoms. Node features of a tile are stored component by component, [component][T][F], so that every
// linear map is a product of F x F blocks; features that neighbours read are stored atom by atom, [atom][READ][F]. The backward pass
// uses that every edge has its reverse: what an atom's features mean to its neighbours is gathered by that atom. Each
// number is thus computed by one thread in a fixed order, and results depend neither on threads nor on what else is in the batch.
//
// NaN must come out where NaN or infinity goes in: edges that are not finite count as within the cutoff.

#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "edges.h"

namespace {

struct Member {
    std::int64_t n_species;
    const real *embedding, *filter, *filter_back;  // [species][F]; [4][species * K][F]; [4][F][rounded(species * K)]
    std::vector<UpdateWeights> updates;
    std::vector<MessageWeights> messages;
    HeadWeights head;

    Member(Reader r, int layers, std::int64_t n)
        : n_species(n), embedding(r.take(n * F)), filter(r.take(4 * n * K * F)), filter_back(r.take(4 * F * rounded(int(n) * K))),
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
        const std::int64_t tiles = (s.n_atoms + T - 1) / T, components = (layers + 2) * NODE + (layers - 1) * READ;
        return (components * tiles * TF + 3 * s.n_edges) * sizeof(real) + s.n_atoms * 9 * sizeof(double) +
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
    std::vector<real*> states, sources;  // by layer: [tile][NODE][T][F]; [atom][READ][F]
    real* gradients[2];                  // by the messages an atom received, [atom][NODE][F]
    real* gradient;                      // by the edges, [edge][3]
    double* virial;                      // of each atom
    char* own_memory;                    // of the threads
    int width;                           // of a row of sums of the first message

    static std::int64_t row_width(std::int64_t n_species) { return rounded(int(n_species) * K) + KP; }
    static std::int64_t per_thread(const Structures& s, std::int64_t n_species) {
        const std::int64_t reals = NODE * T * row_width(n_species) + Surroundings::size(rounded(int(s.widest)));
        return (sizeof(Tile) + reals * sizeof(real) + 63) / 64 * 64;
    }

    void lay_out(char* memory) {
        const std::int64_t tiles = (s.n_atoms + T - 1) / T, node = tiles * NODE * TF;
        memory += (64 - std::uintptr_t(memory) % 64) % 64;
        const auto take = [&](std::int64_t bytes) { char* here = memory; memory += (bytes + 63) / 64 * 64; return here; };
        const auto reals = [&](std::int64_t n) { return (real*)take(n * sizeof(real)); };
        for (std::size_t layer = 0; layer <= member.updates.size(); ++layer) states.push_back(reals(node));
        for (std::size_t layer = 0; layer < member.updates.size(); ++layer) sources.push_back(reals(tiles * READ * TF));
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
        Surroundings around(sums_of(t) + NODE * T * width, rounded(int(s.widest)));
        for (int row = 0; row < T && std::int64_t(tile) * T + row < s.n_atoms; ++row) {
            const std::int64_t i = std::int64_t(tile) * T + row;
            around.look(pairs, elements, s.first[i], pairs.count[i], s.species[i]);
            work(row, i, around);
        }
    }

    void forward(int layer, Tile& t, int tile, const Results& results) {
        const std::int64_t at = std::int64_t(tile) * NODE * TF;
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
        for (int i = TF; i < NODE * TF; i += VL) add(t.state + i, load(received + i));
        if (std::size_t(layer) < member.updates.size()) {
            std::memcpy(states[layer] + at, t.state, sizeof t.state);
            update(member.updates[layer], t, states[layer + 1] + at);
            source(member.messages[layer], t, states[layer + 1] + at, sources[layer] + std::int64_t(tile) * READ * TF);
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
        for (int c = 0; c < NODE; ++c)
            for (int i = 0; i < TF; i += VL)
                store(out + i / F * NODE * F + c * F + i % F, load(t.gradient + c * TF + i) * real(c ? 1 : 1 / SQRT2));
    }
    static void take_back(const real* in, Tile& t) {
        for (int c = 0; c < NODE; ++c)
            for (int i = 0; i < TF; i += VL) store(t.gradient + c * TF + i, load(in + i / F * NODE * F + c * F + i % F));
    }

    void first_message(Tile& t, int tile, real* received) {
        real* sums = sums_of(t);
        std::memset(sums, 0, NODE * T * width * sizeof(real));
        std::memset(t.state, 0, sizeof t.state);
        for_atoms(t, tile, [&](int row, std::int64_t i, const Surroundings& around) {
            std::fill_n(gradient + 3 * s.first[i], 3 * pairs.count[i], real(0));
            std::memcpy(t.state + row * F, member.embedding + s.species[i] * F, F * sizeof(real));
            first_sums(around, width, sums + row * width);
        });
        const int columns = int(member.n_species) * K;
        constexpr int begin[5] = {0, 1, 4, 9, NODE};
        for (int rank = 0; rank < 4; ++rank)
            multiply<false>((begin[rank + 1] - begin[rank]) * T, columns, F, sums + begin[rank] * T * width, width,
                            member.filter + rank * columns * F, received + begin[rank] * TF, F);
    }

    void backward(int layer, Tile& t, int tile) {
        const std::int64_t at = std::int64_t(tile) * NODE * TF;
        const MessageWeights& w = member.messages[layer - 1];
        const real* received = gradients[layer % 2];
        std::memset(t.own_, 0, sizeof t.own_);
        for_atoms(t, tile, [&](int row, std::int64_t i, const Surroundings& around) {
            pull_back_message(w, around, sources[layer - 1] + i * READ * F, received, t.own_ + row * F);
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
        take_back(gradients[0] + std::int64_t(tile) * NODE * TF, t);
        const int columns = rounded(int(member.n_species) * K);
        constexpr int begin[5] = {0, 1, 4, 9, NODE};
        for (int rank = 0; rank < 4; ++rank)
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

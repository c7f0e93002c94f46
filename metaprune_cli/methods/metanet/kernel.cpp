// The edges' part of a metanetwork on a CPU, compiled at first use; metanet/tiles.py is the same in PyTorch.
//
// Edge states are never stored: a vector of hidden dimensions of one edge at a time, they are computed from the weights
// and the neurons' gates, in registers. Blocks of edges are cut into segments. Threads take segments in order, collect
// what they find in memory of their own, and add it up in order: the result does not depend on how many threads there
// are.
//
// Forward and backward compute a message by the same function (`states`), so that a message that was the maximum is
// recognised by comparison.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <new>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

extern "C" {

// A bundle of edges: groups of complete bipartite graphs between destinations and sources.
struct Block {
    int64_t weights;  // first element in the flat weights: (groups, outs, ins, taps)
    int64_t groups, outs, ins, taps;
    int64_t table;         // first row in the tables
    int64_t destinations;  // first element in the list of nodes: (groups, outs)
    int64_t sources;       // (groups, ins)
    int64_t carried;       // first edge of those whose gradients are carried from layer to layer; -1: none of it are
};

// Nodes and tables have rows of `hidden` numbers, a multiple of the width of a vector.
struct Graph {
    const Block* blocks;
    const int64_t* nodes;
    int64_t num_blocks, num_nodes, hidden, layers;
    const REAL* weights;
    const REAL* table;
    const REAL* const* a;  // per layer that the edges have passed, (nodes, hidden)
    const REAL* const* b;
    const REAL* above;  // gradients of the states after all gates, carried from the layer above; null: none
    REAL* below;        // of those before the last gate, to be carried to the layer below
    int32_t threads;
};
}

namespace {

typedef REAL V __attribute__((vector_size(64), aligned(sizeof(REAL)), may_alias));
constexpr int64_t N = sizeof(V) / sizeof(REAL);
constexpr REAL INF = std::numeric_limits<REAL>::infinity();
constexpr int64_t SEGMENT = 1 << 15;  // weights that stay in a core's cache while the hidden dimensions pass over them
constexpr int64_t COLLECTED = 1 << 20;  // bytes about the ends of a segment's edges that stay there while they are summed up
constexpr int64_t NEAR = 24 << 10;    // bytes about the sources that stay in its first cache while destinations pass
constexpr int MAX_LAYERS = 64;

inline V load(const REAL* from) { return *reinterpret_cast<const V*>(from); }
inline void store(REAL* to, V v) { *reinterpret_cast<V*>(to) = v; }
inline void add(REAL* to, V v) { store(to, load(to) + v); }
inline void put(REAL* to, V v, bool fresh) { store(to, fresh ? v : load(to) + v); }
inline V all(REAL value) { return V{} + value; }
inline V larger(V a, V b) { return a > b ? a : b; }
inline V smaller(V a, V b) { return a < b ? a : b; }

#ifdef __clang__
template <int... I> inline V shuffle(V a, V b) { return __builtin_shufflevector(a, b, I...); }
#else
typedef std::conditional_t<sizeof(REAL) == 4, int32_t, int64_t> Lane __attribute__((vector_size(64)));
template <int... I> inline V shuffle(V a, V b) { return __builtin_shuffle(a, b, Lane{I...}); }
#endif

// [sum of the lower half of each block of a and of b | …]: blocks of `size` lanes become blocks of half of that.
template <int size, int... I> inline V halved(V a, V b, std::integer_sequence<int, I...>) {
    // lane I of the result is from block I / size; its first half is a's, its second b's
    constexpr auto from = [](int i) { return i / size * size + i % (size / 2) + (i % size < size / 2 ? 0 : int(N)); };
    return shuffle<from(I)...>(a, b) + shuffle<from(I) + size / 2 ...>(a, b);
}

// Lane i of the result is the sum of the lanes of lines[i].
template <int size = N> inline V sums(V* lines) {
    for (int i = 0; i < size / 2; ++i)
        lines[i] = halved<size>(lines[i], lines[i + size / 2], std::make_integer_sequence<int, N>{});
    if constexpr (size > 2) return sums<size / 2>(lines);
    return lines[0];
}

// Memory of a thread. Aligned: a vector that crosses a cache line takes twice as long.
class Buffer {
    REAL* memory = nullptr;
    int64_t size = 0;

  public:
    Buffer() = default;
    Buffer(const Buffer&) = delete;
    ~Buffer() { operator delete[](memory, std::align_val_t(64)); }
    REAL* get(int64_t wanted) {
        if (wanted > size) {
            operator delete[](memory, std::align_val_t(64));
            memory = nullptr;
            memory = static_cast<REAL*>(operator new[](wanted * sizeof(REAL), std::align_val_t(64)));
            size = wanted;
        }
        return memory;
    }
};

// Some groups and some destinations of a block.
struct Segment {
    const Block* block;
    int64_t group, groups, out, outs;
};

// The first gate that the gradients of a block's states pass; where they are carried on, the last.
int64_t first_gate(const Graph& graph, const Block& block) {
    return block.carried < 0 ? 0 : std::max<int64_t>(graph.layers - 1, 0);
}

// How many of `size` things together make one of several equal parts.
int64_t even(int64_t size, int64_t parts, int64_t multiple) {
    parts = std::max<int64_t>(std::min(size, parts), 1);
    return std::max(multiple, ((size + parts - 1) / parts + multiple - 1) / multiple * multiple);
}

// `arrays`: how many numbers are collected per end of an edge of a block and hidden dimension.
template <class Arrays> std::vector<Segment> cut(const Graph& graph, const Arrays& arrays) {
    std::vector<Segment> segments;
    for (int64_t i = 0; i < graph.num_blocks; ++i) {
        const Block& block = graph.blocks[i];
        if (block.ins == 0) continue;
        const int64_t per_out = block.ins * block.taps + 4, per_group = block.outs * per_out + 4 * block.ins;
        const int64_t ends = arrays(block) * graph.hidden * int64_t(sizeof(REAL)) * (block.outs + block.ins);
        auto parts = [](int64_t total, int64_t most) { return (total + most - 1) / most; };
        // alike in size: threads wait for each other's turn
        const int64_t all_parts = std::max(parts(block.groups * per_group, SEGMENT), parts(block.groups * ends, COLLECTED));
        const int64_t groups = even(block.groups, all_parts, 1);
        const int64_t outs = groups > 1 ? block.outs : even(block.outs, parts(per_group, SEGMENT), 4);
        for (int64_t group = 0; group < block.groups; group += groups)
            for (int64_t out = 0; out < block.outs; out += outs)
                segments.push_back({&block, group, std::min(groups, block.groups - group), out, std::min(outs, block.outs - out)});
    }
    return segments;
}

// One group of a segment.
struct Part {
    const Block& block;
    int64_t outs;
    const int64_t* destinations;
    const int64_t* sources;
    int64_t edge;  // first one, in the block
    const REAL* weights;
    Part(const Graph& graph, const Segment& segment, int64_t group)
        : block(*segment.block), outs(segment.outs),
          destinations(graph.nodes + block.destinations + group * block.outs + segment.out),
          sources(graph.nodes + block.sources + group * block.ins),
          edge((group * block.outs + segment.out) * block.ins), weights(graph.weights + block.weights + edge * block.taps) {}
    // Where carried gradients are, in the order of `by_fours`: of the edges from the xth source on to R destinations.
    template <int R> int64_t carried(const Graph& graph, int64_t y, int64_t x, int64_t h) const {
        return block.carried * graph.hidden + h * block.groups * block.outs * block.ins + (edge + y * block.ins + x * R) * N;
    }
};

// run() on some threads at once.
template <class Run> void on_threads(int threads, const Run& run) {
#ifdef _OPENMP  // PyTorch's own threads, which may still be awake
#pragma omp parallel num_threads(threads)
    run();
#else
    std::vector<std::thread> others;
    for (int t = 1; t < threads; ++t) others.emplace_back(run);
    run();
    for (auto& other : others) other.join();
#endif
}

// work(segment, own) of all segments on all threads, then merge(segment, own) of each, one at a time and in order.
template <class Own, class Arrays, class Work, class Merge>
void in_order(const Graph& graph, const Arrays& arrays, const Work& work, const Merge& merge) {
    const std::vector<Segment> segments = cut(graph, arrays);
    std::atomic<size_t> next{0}, turn{0};
    auto run = [&] {
        Own own;
        for (size_t i; (i = next.fetch_add(1)) < segments.size();) {
            work(segments[i], own);
            while (turn.load(std::memory_order_acquire) != i) std::this_thread::yield();
            merge(segments[i], own);
            turn.store(i + 1, std::memory_order_release);
        }
    };
    on_threads(int(std::min<int64_t>(graph.threads, segments.size())), run);
}

// body(part, position of its first destination, of its first source) for each group of a segment.
template <class Body> void for_groups(const Graph& graph, const Segment& segment, const Body& body) {
    for (int64_t g = 0; g < segment.groups; ++g)
        body(Part(graph, segment, segment.group + g), g * segment.outs, g * segment.block->ins);
}

// What some sources bring to their edges in one vector of dimensions, side by side: the gates, then what else is asked.
struct Near {
    Buffer buffer;
    REAL* memory;
    int64_t width;
    void gather(const Graph& graph, const int64_t* nodes, int64_t count, int64_t h,
                std::initializer_list<const REAL*> others) {
        REAL* to = memory = buffer.get((2 * graph.layers + int64_t(others.size())) * count * N);
        width = count;
        auto copy = [&](const REAL* from) {
            for (int64_t x = 0; x < count; ++x, to += N) store(to, load(from + nodes[x] * graph.hidden + h));
        };
        std::for_each(graph.a, graph.a + graph.layers, copy);
        std::for_each(graph.b, graph.b + graph.layers, copy);
        std::for_each(others.begin(), others.end(), copy);
    }
    V a(int64_t k, int64_t x) const { return load(memory + (k * width + x) * N); }
    V b(const Graph& graph, int64_t k, int64_t x) const { return a(graph.layers + k, x); }
    V other(const Graph& graph, int64_t i, int64_t x) const { return a(2 * graph.layers + i, x); }
};

// body(number of destinations, first destination, first source, last source + 1): some sources at a time, so that what
// there is to know about them stays near (but sixteen, or the destinations' own loads weigh more), and the destinations
// four and then one at a time.
template <class Body>
inline void by_fours(const Graph& graph, const Part& part, int64_t h, Near& near, std::initializer_list<const REAL*> others,
                     int64_t outputs, const Body& body) {
    const int64_t arrays = 2 * graph.layers + int64_t(others.size()) + outputs;
    const int64_t step = std::max<int64_t>(16, NEAR / int64_t(sizeof(V)) / std::max<int64_t>(arrays, 1));
    for (int64_t x = 0; x < part.block.ins; x += step) {
        const int64_t end = std::min(part.block.ins, x + step);
        near.gather(graph, part.sources + x, end - x, h, others);
        int64_t y = 0;
        for (; y + 4 <= part.outs; y += 4) body(std::integral_constant<int, 4>{}, y, x, end);
        for (; y < part.outs; ++y) body(std::integral_constant<int, 1>{}, y, x, end);
    }
}

// body(number of sources, first of them): a few and then one at a time.
constexpr int FEW = 4;
template <class Body> inline void by_few(int64_t begin, int64_t end, const Body& body) {
    int64_t x = begin;
    for (; x + FEW <= end; x += FEW) body(std::integral_constant<int, FEW>{}, x);
    for (; x < end; ++x) body(std::integral_constant<int, 1>{}, x);
}

inline V gate(V a, V b, V out_a, V out_b) {
    V g = a * out_b + REAL(1);
    return b * out_a + g;
}

// The gates of R destinations, and where those of the sources are.
template <int R> struct Gates {
    V a[MAX_LAYERS * R], b[MAX_LAYERS * R];
    void gather(const Graph& graph, const int64_t* nodes, int64_t h) {
        for (int64_t k = 0; k < graph.layers; ++k)
            for (int r = 0; r < R; ++r) {
                a[k * R + r] = load(graph.a[k] + nodes[r] * graph.hidden + h);
                b[k * R + r] = load(graph.b[k] + nodes[r] * graph.hidden + h);
            }
    }
};

// What a backward pass needs of a few sources' edges to R destinations: their states before each gate, the gates.
template <int R> struct Kept {
    V states[MAX_LAYERS][FEW][R], gates[MAX_LAYERS][FEW][R];
};

// States of the edges from the xth of the near sources to R destinations, after all gates; the `place`th of `kept`, if any.
template <int R, bool KEEP>
inline void states(V* e, Kept<R>* kept, int64_t place, const Graph& graph, const Part& part, const REAL* weights,
                   const Gates<R>& gates, const Near& near, int64_t x, int64_t h) {
    const int64_t taps = part.block.taps, row = part.block.ins * taps, first = first_gate(graph, part.block);
    const REAL* table = graph.table + part.block.table * graph.hidden + h;
    for (int r = 0; r < R; ++r) e[r] = load(table) * weights[r * row];
    for (int64_t t = 1; t < taps; ++t) {
        V tap = load(table + t * graph.hidden);
        for (int r = 0; r < R; ++r) e[r] = tap * weights[r * row + t] + e[r];
    }
    for (int64_t k = 0; k < graph.layers; ++k) {
        V a = near.a(k, x), b = near.b(graph, k, x);
        for (int r = 0; r < R; ++r) {
            V g = gate(a, b, gates.a[k * R + r], gates.b[k * R + r]);
            if (KEEP && k >= first) kept->states[k][place][r] = e[r], kept->gates[k][place][r] = g;
            e[r] = e[r] * g;
        }
    }
}

// ---- what neurons hear ----------------------------------------------------------------------------------------------

// Sets of messages: differences from a first message, `shift`, are summed up, so that nothing large cancels.
struct Sets {
    Buffer buffer;
    REAL *shift, *s1, *s2, *high, *low;
    int64_t count;
    void begin(int64_t sets, int64_t hidden) {
        const int64_t size = sets * hidden;
        shift = buffer.get(5 * size), s1 = shift + size, s2 = s1 + size, high = s2 + size, low = high + size, count = sets;
    }
    int64_t at(int64_t set, int64_t h) const { return h * count + set * N; }
};

// Per node: mean, sum of squared differences from it, maximum and minimum of what it has heard so far.
struct Heard {
    REAL *mean, *squares, *high, *low;
    std::vector<REAL> count;
    V tied{};  // not zero where an extreme of one set is that of another as well
    Heard(const Graph& graph, REAL* planes) : count(graph.num_nodes, REAL(0)) {
        const int64_t plane = graph.num_nodes * graph.hidden;
        mean = planes, squares = mean + plane, high = squares + plane, low = high + plane;
        std::fill(mean, high, REAL(0));
        std::fill(high, low, -INF);
        std::fill(low, low + plane, INF);
    }
    // one set more (Chan et al., 1979)
    void merge(const Graph& graph, int64_t node, REAL size, const Sets& sets, int64_t set) {
        const REAL before = count[node], now = count[node] = before + size;
        for (int64_t h = 0; h < graph.hidden; h += N) {
            const int64_t from = sets.at(set, h), to = node * graph.hidden + h;
            V s1 = load(sets.s1 + from), off = s1 / size, delta = load(sets.shift + from) + off - load(mean + to);
            V own = load(sets.s2 + from) - s1 * off;
            own = own < REAL(0) ? V{} : own;
            add(mean + to, delta * (size / now));
            add(squares + to, own + delta * delta * (before * size / now));
            V top = load(sets.high + from), bottom = load(sets.low + from), known_top = load(high + to), known_bottom = load(low + to);
            tied = (top == known_top) | (bottom == known_bottom) ? all(1) : tied;
            store(high + to, larger(known_top, top));
            store(low + to, smaller(known_bottom, bottom));
        }
    }
    void end(const Graph& graph) {
        for (int64_t i = 0; i < graph.num_nodes; ++i)
            for (int64_t h = i * graph.hidden; h < (i + 1) * graph.hidden; h += N)
                if (count[i] > 0) store(squares + h, load(squares + h) / count[i]);
                else store(high + h, V{}), store(low + h, V{});
    }
};

struct BothSets {
    Near near;
    Sets ahead, back;
    V tied{};
};

// Whether some extreme may be shared by several messages, too: for that each is compared with those before it.
template <bool TIES> bool hear(const Graph& graph, const REAL* send, const REAL* send_back, REAL* out) {
    const int64_t H = graph.hidden;
    const V one = all(1);
    V tied{};
    Heard ahead(graph, out), back(graph, out + 4 * graph.num_nodes * H);
    auto work = [&](const Segment& segment, BothSets& own) {
        own.ahead.begin(segment.groups * segment.outs, H);
        own.back.begin(segment.groups * segment.block->ins, H);
        for_groups(graph, segment, [&](const Part& part, int64_t first_out, int64_t first_in) {
            const int64_t ins = part.block.ins, taps = part.block.taps;
            for (int64_t h = 0; h < H; h += N)
                by_fours(graph, part, h, own.near, {send}, 5, [&](auto count, int64_t y, int64_t begin, int64_t end) {
                    constexpr int R = decltype(count)::value;
                    Gates<R> gates;
                    gates.gather(graph, part.destinations + y, h);
                    const REAL* weights = part.weights + (y * ins + begin) * taps;
                    V shift[R], s1[R], s2[R], high[R], low[R], returned[R], tied = own.tied;
                    for (int r = 0; r < R; ++r) {
                        const int64_t at = own.ahead.at(first_out + y + r, h);
                        returned[r] = load(send_back + part.destinations[y + r] * H + h);
                        const bool fresh = begin == 0;
                        shift[r] = fresh ? V{} : load(own.ahead.shift + at);
                        s1[r] = fresh ? V{} : load(own.ahead.s1 + at);
                        s2[r] = fresh ? V{} : load(own.ahead.s2 + at);
                        high[r] = fresh ? all(-INF) : load(own.ahead.high + at);
                        low[r] = fresh ? all(INF) : load(own.ahead.low + at);
                    }
                    for (int64_t x = begin; x < end; ++x, weights += taps) {
                        V e[R];
                        states<R, false>(e, nullptr, 0, graph, part, weights, gates, own.near, x - begin, h);
                        V sent = own.near.other(graph, 0, x - begin);
                        for (int r = 0; r < R; ++r) {
                            V m = e[r] * sent;
                            if (x == 0) shift[r] = m;
                            V d = m - shift[r];
                            s1[r] += d;
                            s2[r] = d * d + s2[r];
                            if (TIES) tied = m == high[r] ? one : tied, tied = m == low[r] ? one : tied;
                            high[r] = larger(high[r], m);
                            low[r] = smaller(low[r], m);
                        }
                        const int64_t at = own.back.at(first_in + x, h);
                        V m = e[0] * returned[0], c = y == 0 ? m : load(own.back.shift + at), d = m - c;
                        V sum = d, squares = d * d, top = m, bottom = m;
                        for (int r = 1; r < R; ++r) {
                            m = e[r] * returned[r];
                            d = m - c;
                            sum += d;
                            squares = d * d + squares;
                            if (TIES) tied = m == top ? one : tied, tied = m == bottom ? one : tied;
                            top = larger(top, m);
                            bottom = smaller(bottom, m);
                        }
                        if (y == 0) store(own.back.shift + at, c);
                        else {
                            sum += load(own.back.s1 + at), squares += load(own.back.s2 + at);
                            V known_top = load(own.back.high + at), known_bottom = load(own.back.low + at);
                            if (TIES) tied = known_top == top ? one : tied, tied = known_bottom == bottom ? one : tied;
                            top = larger(top, known_top), bottom = smaller(bottom, known_bottom);
                        }
                        store(own.back.s1 + at, sum), store(own.back.s2 + at, squares);
                        store(own.back.high + at, top), store(own.back.low + at, bottom);
                    }
                    for (int r = 0; r < R; ++r) {
                        const int64_t at = own.ahead.at(first_out + y + r, h);
                        store(own.ahead.shift + at, shift[r]), store(own.ahead.s1 + at, s1[r]);
                        store(own.ahead.s2 + at, s2[r]), store(own.ahead.high + at, high[r]);
                        store(own.ahead.low + at, low[r]);
                    }
                    if (TIES) own.tied = tied;
                });
        });
    };
    in_order<BothSets>(graph, [](const Block&) { return 5; }, work, [&](const Segment& segment, BothSets& own) {
        for_groups(graph, segment, [&](const Part& part, int64_t first_out, int64_t first_in) {
            for (int64_t y = 0; y < part.outs; ++y)
                ahead.merge(graph, part.destinations[y], REAL(part.block.ins), own.ahead, first_out + y);
            for (int64_t x = 0; x < part.block.ins; ++x)
                back.merge(graph, part.sources[x], REAL(part.outs), own.back, first_in + x);
        });
        tied += own.tied;
    });
    ahead.end(graph);
    back.end(graph);
    tied += ahead.tied + back.tied;
    for (int i = 0; i < N; ++i)
        if (tied[i] != 0) return true;
    return false;
}

// ---- sums per node --------------------------------------------------------------------------------------------------

// Some arrays of numbers per destination and per source of a segment, and one per row of its table, to be added to the
// same arrays of all nodes.
struct Sums {
    Near near;
    Buffer buffer;
    REAL *outs, *ins, *taps;
    int64_t out_count, in_count, out_size, in_size;
    void begin(const Graph& graph, const Segment& segment, int64_t arrays, int64_t tables) {
        out_count = segment.groups * segment.outs, in_count = segment.groups * segment.block->ins;
        out_size = out_count * graph.hidden, in_size = in_count * graph.hidden;
        const int64_t size = tables * segment.block->taps * graph.hidden;
        outs = buffer.get(arrays * (out_size + in_size) + size), ins = outs + arrays * out_size, taps = ins + arrays * in_size;
        std::fill(taps, taps + size, REAL(0));  // the others are written before they are added to
    }
    REAL* of_out(int64_t array, int64_t place, int64_t h) const { return outs + array * out_size + h * out_count + place * N; }
    REAL* of_in(int64_t array, int64_t place, int64_t h) const { return ins + array * in_size + h * in_count + place * N; }
    void merge(const Graph& graph, const Segment& segment, int64_t array, REAL* of_outs, REAL* of_ins) const {
        for_groups(graph, segment, [&](const Part& part, int64_t first_out, int64_t first_in) {
            for (int64_t y = 0; y < part.outs; ++y)
                for (int64_t h = 0; h < graph.hidden; h += N)
                    add(of_outs + part.destinations[y] * graph.hidden + h, load(of_out(array, first_out + y, h)));
            for (int64_t x = 0; x < part.block.ins; ++x)
                for (int64_t h = 0; h < graph.hidden; h += N)
                    add(of_ins + part.sources[x] * graph.hidden + h, load(of_in(array, first_in + x, h)));
        });
    }
    void merge_table(const Graph& graph, const Segment& segment, int64_t number, REAL* to) const {
        const int64_t size = segment.block->taps * graph.hidden;
        for (int64_t i = 0; i < size; i += N)
            add(to + segment.block->table * graph.hidden + i, load(taps + number * size + i));
    }
};

// How many messages of a node are the maximum that was `heard`, and how many the minimum; in both directions.
void count_extremes(const Graph& graph, const REAL* send, const REAL* send_back, const REAL* heard, REAL* counts) {
    const int64_t H = graph.hidden, plane = graph.num_nodes * H;
    const REAL *const top = heard + 2 * plane, *const bottom = heard + 3 * plane;
    const V one = all(1);
    auto work = [&](const Segment& segment, Sums& own) {
        own.begin(graph, segment, 2, 0);
        for_groups(graph, segment, [&](const Part& part, int64_t first_out, int64_t first_in) {
            const int64_t ins = part.block.ins;
            for (int64_t h = 0; h < H; h += N)
                by_fours(graph, part, h, own.near, {send, top + 4 * plane, bottom + 4 * plane}, 2,
                         [&](auto count, int64_t y, int64_t begin, int64_t end) {
                    constexpr int R = decltype(count)::value;
                    Gates<R> gates;
                    gates.gather(graph, part.destinations + y, h);
                    V high[R], low[R], returned[R], highs[R], lows[R];
                    for (int r = 0; r < R; ++r) {
                        const int64_t node = part.destinations[y + r] * H + h;
                        high[r] = load(top + node), low[r] = load(bottom + node), returned[r] = load(send_back + node);
                        highs[r] = lows[r] = V{};
                    }
                    for (int64_t x = begin; x < end; ++x) {
                        const REAL* weights = part.weights + (y * ins + x) * part.block.taps;
                        V e[R], in_highs{}, in_lows{};
                        states<R, false>(e, nullptr, 0, graph, part, weights, gates, own.near, x - begin, h);
                        auto known = [&](int array) { return own.near.other(graph, array, x - begin); };
                        for (int r = 0; r < R; ++r) {
                            V m = e[r] * known(0), back = e[r] * returned[r];
                            highs[r] = m == high[r] ? highs[r] + one : highs[r];
                            lows[r] = m == low[r] ? lows[r] + one : lows[r];
                            in_highs = back == known(1) ? in_highs + one : in_highs;
                            in_lows = back == known(2) ? in_lows + one : in_lows;
                        }
                        put(own.of_in(0, first_in + x, h), in_highs, y == 0);
                        put(own.of_in(1, first_in + x, h), in_lows, y == 0);
                    }
                    for (int r = 0; r < R; ++r) {
                        put(own.of_out(0, first_out + y + r, h), highs[r], begin == 0);
                        put(own.of_out(1, first_out + y + r, h), lows[r], begin == 0);
                    }
                });
        });
    };
    in_order<Sums>(graph, [](const Block&) { return 2; }, work, [&](const Segment& segment, Sums& own) {
        own.merge(graph, segment, 0, counts, counts + 2 * plane);
        own.merge(graph, segment, 1, counts + plane, counts + 3 * plane);
    });
}

// ---- gradients ------------------------------------------------------------------------------------------------------

// How many arrays of gradients of gates a block has.
int64_t gate_arrays(const Graph& graph, const Block& block) { return 2 * (graph.layers - first_gate(graph, block)); }

// From the gradients `de` of the states of F sources' edges, the first of which is the part's edge `at`, to those of the
// gates and of the table: the sources are the xth and next of the near ones, and in `own` they begin at `place`. There,
// array 2k is that of a[first + k] and array 2k + 1 that of b[first + k]; those of the destinations are collected in `out_a`
// and `out_b`.
template <int F, int R>
inline void through_gates(V (*de)[R], const Kept<R>& kept, const Graph& graph, const Part& part, const Gates<R>& gates, int64_t y, int64_t x, int64_t near, int64_t place, int64_t h, V* out_a, V* out_b, Sums& own) {
    const int64_t H = graph.hidden, ins = part.block.ins, taps = part.block.taps, row = ins * taps;
    const int64_t first = first_gate(graph, part.block);
    const bool carried = part.block.carried >= 0;
    if (carried && graph.above) {
        const REAL* from = graph.above + part.carried<R>(graph, y, x, h);
        for (int i = 0; i < F; ++i)
            for (int r = 0; r < R; ++r, from += N) de[i][r] += load(from);
    }
    for (int64_t k = graph.layers - 1; k >= first; --k) {
        V to_y_a[R], to_y_b[R], sum_a[R], sum_b[R];
        for (int r = 0; r < R; ++r) {
            to_y_a[r] = gates.a[k * R + r], to_y_b[r] = gates.b[k * R + r];
            sum_a[r] = out_a[k * R + r], sum_b[r] = out_b[k * R + r];
        }
        for (int i = 0; i < F; ++i) {
            V a = own.near.a(k, near + i), b = own.near.b(graph, k, near + i);
            REAL *to_a = own.of_in(2 * (k - first), place + i, h), *to_b = own.of_in(2 * (k - first) + 1, place + i, h);
            V grad_a = y == 0 ? V{} : load(to_a), grad_b = y == 0 ? V{} : load(to_b);
            for (int r = 0; r < R; ++r) {
                V dg = de[i][r] * kept.states[k][i][r];
                de[i][r] = de[i][r] * kept.gates[k][i][r];
                grad_a = dg * to_y_b[r] + grad_a;
                grad_b = dg * to_y_a[r] + grad_b;
                sum_a[r] = dg * b + sum_a[r];
                sum_b[r] = dg * a + sum_b[r];
            }
            store(to_a, grad_a), store(to_b, grad_b);
        }
        for (int r = 0; r < R; ++r) out_a[k * R + r] = sum_a[r], out_b[k * R + r] = sum_b[r];
    }
    if (carried && graph.layers) {
        REAL* to = graph.below + part.carried<R>(graph, y, x, h);
        for (int i = 0; i < F; ++i)
            for (int r = 0; r < R; ++r, to += N) store(to, de[i][r]);
        return;
    }
    const REAL* weights = part.weights + (y * ins + x) * taps;
    for (int64_t t = 0; t < taps; ++t) {
        V sum = load(own.taps + t * H + h);
        for (int i = 0; i < F; ++i)
            for (int r = 0; r < R; ++r) sum = de[i][r] * weights[r * row + i * taps + t] + sum;
        store(own.taps + t * H + h, sum);
    }
}

template <int R> inline void keep_gates(const Graph& graph, const Block& block, const V* out_a, const V* out_b, int64_t place,
                                        int64_t h, Sums& own, bool fresh) {
    const int64_t first = first_gate(graph, block);
    for (int64_t k = first; k < graph.layers; ++k)
        for (int r = 0; r < R; ++r) {
            put(own.of_out(2 * (k - first), place + r, h), out_a[k * R + r], fresh);
            put(own.of_out(2 * (k - first) + 1, place + r, h), out_b[k * R + r], fresh);
        }
}

void merge_states(const Graph& graph, const Segment& segment, const Sums& own, REAL* grad_table, REAL* const* grad_a,
                  REAL* const* grad_b) {
    const int64_t first = first_gate(graph, *segment.block);
    for (int64_t k = first; k < graph.layers; ++k) {
        own.merge(graph, segment, 2 * (k - first), grad_a[k], grad_a[k]);
        own.merge(graph, segment, 2 * (k - first) + 1, grad_b[k], grad_b[k]);
    }
    own.merge_table(graph, segment, 0, grad_table);
}

// How many arrays besides the gates' the sizes of segments and steps are chosen for: they are the order of all sums.
constexpr int64_t OTHERS = 3;

// `slopes`, per direction four planes: a message m gets the first plus the second times m, the third where it is the
// maximum that was `heard`, the fourth where it is the minimum.
void hear_backward(const Graph& graph, const REAL* send, const REAL* send_back, const REAL* heard, const REAL* slopes,
                   REAL* grad_table, REAL* const* grad_a, REAL* const* grad_b, REAL* grad_send, REAL* grad_send_back) {
    const int64_t H = graph.hidden, plane = graph.num_nodes * H;
    const int64_t back = 4 * plane;  // from what is about the edges to the same about the reversed edges
    const REAL *const ahead[6] = {slopes, slopes + plane, heard + 2 * plane, heard + 3 * plane, slopes + 2 * plane,
                                  slopes + 3 * plane};
    auto work = [&](const Segment& segment, Sums& own) {
        const int64_t last = gate_arrays(graph, *segment.block);
        own.begin(graph, segment, last + 1, 1);
        for_groups(graph, segment, [&](const Part& part, int64_t first_out, int64_t first_in) {
            const int64_t ins = part.block.ins, taps = part.block.taps;
            for (int64_t h = 0; h < H; h += N)
                by_fours(graph, part, h, own.near, {send, ahead[0] + back, ahead[1] + back, ahead[2] + back, ahead[3] + back,
                                                    ahead[4] + back, ahead[5] + back},
                         last + OTHERS, [&](auto count, int64_t y, int64_t begin, int64_t end) {
                    constexpr int R = decltype(count)::value;
                    Gates<R> gates;
                    gates.gather(graph, part.destinations + y, h);
                    Kept<R> kept;
                    V out_a[MAX_LAYERS * R], out_b[MAX_LAYERS * R], slope[R][6], returned[R], grad[R];
                    for (int64_t k = 0; k < graph.layers * R; ++k) out_a[k] = out_b[k] = V{};
                    for (int r = 0; r < R; ++r) {
                        const int64_t node = part.destinations[y + r] * H + h;
                        for (int i = 0; i < 6; ++i) slope[r][i] = load(ahead[i] + node);
                        returned[r] = load(send_back + node), grad[r] = V{};
                    }
                    by_few(begin, end, [&](auto size, int64_t x) {
                        constexpr int F = decltype(size)::value;
                        const REAL* weights = part.weights + (y * ins + x) * taps;
                        V de[F][R];
                        for (int i = 0; i < F; ++i) {
                            V e[R];
                            states<R, true>(e, &kept, i, graph, part, weights + i * taps, gates, own.near, x - begin + i, h);
                            auto known = [&](int array) { return own.near.other(graph, array, x - begin + i); };
                            V sent = known(0), constant = known(1), factor = known(2), top = known(3), bottom = known(4);
                            V at_top = known(5), at_bottom = known(6), grad_sent{};
                            for (int r = 0; r < R; ++r) {
                                V m = e[r] * sent;
                                V dm = m * slope[r][1] + slope[r][0];
                                dm = m == slope[r][2] ? dm + slope[r][4] : dm;
                                dm = m == slope[r][3] ? dm + slope[r][5] : dm;
                                grad_sent = dm * e[r] + grad_sent;
                                V d = dm * sent;
                                m = e[r] * returned[r];
                                dm = m * factor + constant;
                                dm = m == top ? dm + at_top : dm;
                                dm = m == bottom ? dm + at_bottom : dm;
                                grad[r] = dm * e[r] + grad[r];
                                de[i][r] = dm * returned[r] + d;
                            }
                            put(own.of_in(last, first_in + x + i, h), grad_sent, y == 0);
                        }
                        through_gates<F, R>(de, kept, graph, part, gates, y, x, x - begin, first_in + x, h, out_a, out_b, own);
                    });
                    keep_gates<R>(graph, part.block, out_a, out_b, first_out + y, h, own, begin == 0);
                    for (int r = 0; r < R; ++r) put(own.of_out(last, first_out + y + r, h), grad[r], begin == 0);
                });
        });
    };
    auto arrays = [&](const Block& block) { return gate_arrays(graph, block) + OTHERS; };
    in_order<Sums>(graph, arrays, work, [&](const Segment& segment, Sums& own) {
        const int64_t last = gate_arrays(graph, *segment.block);
        merge_states(graph, segment, own, grad_table, grad_a, grad_b);
        own.merge(graph, segment, last, grad_send_back, grad_send);
    });
}

// ---- decoding -------------------------------------------------------------------------------------------------------

struct Gathered {
    Near near;
};

void decode_states(const Graph& graph, const REAL* out_table, REAL* out) {
    const int64_t H = graph.hidden;
    auto work = [&](const Segment& segment, Gathered& own) {
        for_groups(graph, segment, [&](const Part& part, int64_t, int64_t) {
            const int64_t ins = part.block.ins, taps = part.block.taps;
            const REAL* table = out_table + part.block.table * H;
            REAL* const target = out + (part.weights - graph.weights);
            std::fill(target, target + part.outs * ins * taps, REAL(0));
            for (int64_t h = 0; h < H; h += N)
                by_fours(graph, part, h, own.near, {}, 0, [&](auto count, int64_t y, int64_t begin, int64_t end) {
                    constexpr int R = decltype(count)::value;
                    Gates<R> gates;
                    gates.gather(graph, part.destinations + y, h);
                    // products of consecutive changes, of which the dimensions are still to be summed up
                    V lines[R][N];
                    int64_t filled = 0, at = (y * ins + begin) * taps;
                    auto flush = [&] {
                        for (int r = 0; r < R; ++r) {
                            V sum = sums(lines[r]);
                            for (int64_t i = 0; i < filled; ++i) target[at + r * ins * taps + i] += sum[i];
                        }
                        at += filled, filled = 0;
                    };
                    for (int64_t x = begin; x < end; ++x) {
                        V e[R];
                        states<R, false>(e, nullptr, 0, graph, part, part.weights + (y * ins + x) * taps, gates, own.near, x - begin, h);
                        for (int64_t t = 0; t < taps; ++t) {
                            V tap = load(table + t * H + h);
                            for (int r = 0; r < R; ++r) lines[r][filled] = e[r] * tap;
                            if (++filled == N) flush();
                        }
                    }
                    if (filled) flush();
                });
        });
    };
    in_order<Gathered>(graph, [](const Block&) { return 0; }, work, [](const Segment&, Gathered&) {});
}

void decode_states_backward(const Graph& graph, const REAL* out_table, const REAL* grad_out, REAL* grad_table,
                            REAL* const* grad_a, REAL* const* grad_b, REAL* grad_out_table) {
    const int64_t H = graph.hidden;
    auto work = [&](const Segment& segment, Sums& own) {
        const int64_t arrays = gate_arrays(graph, *segment.block);
        own.begin(graph, segment, arrays, 2);
        for_groups(graph, segment, [&](const Part& part, int64_t first_out, int64_t first_in) {
            const int64_t ins = part.block.ins, taps = part.block.taps, row = ins * taps;
            const REAL* table = out_table + part.block.table * H;
            REAL* const grad_table_out = own.taps + taps * H;
            for (int64_t h = 0; h < H; h += N)
                by_fours(graph, part, h, own.near, {}, arrays, [&](auto count, int64_t y, int64_t begin, int64_t end) {
                    constexpr int R = decltype(count)::value;
                    Gates<R> gates;
                    gates.gather(graph, part.destinations + y, h);
                    Kept<R> kept;
                    V out_a[MAX_LAYERS * R], out_b[MAX_LAYERS * R];
                    for (int64_t k = 0; k < graph.layers * R; ++k) out_a[k] = out_b[k] = V{};
                    by_few(begin, end, [&](auto size, int64_t x) {
                        constexpr int F = decltype(size)::value;
                        const REAL* weights = part.weights + (y * ins + x) * taps;
                        const REAL* incoming = grad_out + (weights - graph.weights);
                        V e[F][R], de[F][R];
                        for (int i = 0; i < F; ++i) {
                            states<R, true>(e[i], &kept, i, graph, part, weights + i * taps, gates, own.near, x - begin + i, h);
                            for (int r = 0; r < R; ++r) de[i][r] = V{};
                        }
                        for (int64_t t = 0; t < taps; ++t) {
                            V tap = load(table + t * H + h), sum = load(grad_table_out + t * H + h);
                            for (int i = 0; i < F; ++i)
                                for (int r = 0; r < R; ++r) {
                                    const REAL gradient = incoming[r * row + i * taps + t];
                                    de[i][r] = tap * gradient + de[i][r];
                                    sum = e[i][r] * gradient + sum;
                                }
                            store(grad_table_out + t * H + h, sum);
                        }
                        through_gates<F, R>(de, kept, graph, part, gates, y, x, x - begin, first_in + x, h, out_a, out_b, own);
                    });
                    keep_gates<R>(graph, part.block, out_a, out_b, first_out + y, h, own, begin == 0);
                });
        });
    };
    in_order<Sums>(graph, [&](const Block& block) { return gate_arrays(graph, block); }, work, [&](const Segment& segment, Sums& own) {
        merge_states(graph, segment, own, grad_table, grad_a, grad_b);
        own.merge_table(graph, segment, 1, grad_out_table);
    });
}

// ---- per neuron -----------------------------------------------------------------------------------------------------

// Each product and sum is rounded by itself, as in PyTorch, but where it fuses them itself (addcmul).
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#endif

// body(neuron) for each neuron, some of them on each thread.
template <class Body> void for_neurons(int64_t neurons, int threads, const Body& body) {
    constexpr int64_t MANY = 64;
    std::atomic<int64_t> next{0};
    on_threads(int(std::min<int64_t>(threads, (neurons + MANY - 1) / MANY)), [&] {
        for (int64_t first; (first = next.fetch_add(MANY)) < neurons;)
            for (int64_t i = first; i < std::min(neurons, first + MANY); ++i) body(i);
    });
}

// What a neuron heard along the edges and along the reversed edges, and the slopes of the same.
struct Planes {
    int64_t plane;
    template <class T> T* at(T* planes, int direction, int number, int64_t i) const {
        return planes + (4 * direction + number) * plane + i;
    }
};

// `roots`: of the variance of what arrives through the gate plus something small, of which `least` is the root.
void receive_all(int64_t neurons, int64_t H, int threads, REAL least, const REAL* gate, const REAL* heard,
                 const REAL* roots, REAL* out) {
    const Planes planes{neurons * H};
    for_neurons(neurons, threads, [&](int64_t i) {
        const REAL* const g = gate + i * H;
        const REAL *m[2], *root[2], *high[2], *low[2];
        for (int d = 0; d < 2; ++d) {
            m[d] = planes.at(heard, d, 0, i * H), root[d] = roots + (d * neurons + i) * H;
            high[d] = planes.at(heard, d, 2, i * H), low[d] = planes.at(heard, d, 3, i * H);
        }
        REAL* const to = out + 4 * i * H;
#pragma GCC ivdep
        for (int64_t h = 0; h < H; ++h) {
            const REAL top = high[0][h] + high[1][h], bottom = low[0][h] + low[1][h];
            to[h] = g[h] * (m[0][h] + m[1][h]);
            to[H + h] = (root[0][h] - least) + (root[1][h] - least);
            to[2 * H + h] = g[h] * (g[h] > 0 ? top : bottom);
            to[3 * H + h] = g[h] * (g[h] > 0 ? bottom : top);
        }
    });
}

// The gradient of the gates, and the slopes that `hear_backward` takes, given how many messages each neuron got.
void receive_all_backward(int64_t neurons, int64_t H, int threads, const REAL* gate, const REAL* heard, const REAL* roots,
                          const REAL* messages, const REAL* gradient, REAL* of_gate, REAL* slopes) {
    const Planes planes{neurons * H};
    for_neurons(neurons, threads, [&](int64_t i) {
        const REAL *const g = gate + i * H, *const of = gradient + 4 * i * H;
        const REAL *m[2], *v[2], *high[2], *low[2], *root[2];
        REAL *constant[2], *factor[2], *at_high[2], *at_low[2];
        for (int d = 0; d < 2; ++d) {
            m[d] = planes.at(heard, d, 0, i * H), v[d] = planes.at(heard, d, 1, i * H);
            high[d] = planes.at(heard, d, 2, i * H), low[d] = planes.at(heard, d, 3, i * H);
            root[d] = roots + (d * neurons + i) * H;
            constant[d] = planes.at(slopes, d, 0, i * H), factor[d] = planes.at(slopes, d, 1, i * H);
            at_high[d] = planes.at(slopes, d, 2, i * H), at_low[d] = planes.at(slopes, d, 3, i * H);
        }
        REAL* const to = of_gate + i * H;
        const REAL count[2] = {messages[i], messages[neurons + i]};
#pragma GCC ivdep
        for (int64_t h = 0; h < H; ++h) {
            const REAL x = g[h], of_mean = of[h], of_deviation = of[H + h];
            const REAL of_max = of[2 * H + h], of_min = of[3 * H + h];
            REAL along[2];
            for (int d = 0; d < 2; ++d) {
                const REAL slope = of_deviation * x / root[d][h];
                const REAL twice = slope * (REAL(0.5) * x) / count[d] * 2;
                constant[d][h] = std::fma(-twice, m[d][h], of_mean * x / count[d]);
                factor[d][h] = twice;
                at_high[d][h] = (x > 0 ? of_max : of_min) * x;
                at_low[d][h] = (x > 0 ? of_min : of_max) * x;
                along[d] = slope * v[d][h];
            }
            const REAL top = high[0][h] + high[1][h], bottom = low[0][h] + low[1][h];
            const REAL sum = of_mean * (m[0][h] + m[1][h]) + (along[0] + along[1]);
            to[h] = std::fma(of_min, x > 0 ? bottom : top, std::fma(of_max, x > 0 ? top : bottom, sum));
        }
    });
}

#ifndef __clang__
#pragma GCC pop_options
#endif

}  // namespace

extern "C" {

void summaries(const Graph* graph, const REAL* send, const REAL* send_back, REAL* out) {
    hear<false>(*graph, send, send_back, out);
}

void summaries_and_ties(const Graph* graph, const REAL* send, const REAL* send_back, REAL* out, REAL* tied) {
    *tied = hear<true>(*graph, send, send_back, out);
}

void extremes(const Graph* graph, const REAL* send, const REAL* send_back, const REAL* heard, REAL* counts) {
    count_extremes(*graph, send, send_back, heard, counts);
}

void summaries_backward(const Graph* graph, const REAL* send, const REAL* send_back, const REAL* heard,
                        const REAL* slopes, REAL* grad_table, REAL* const* grad_a, REAL* const* grad_b,
                        REAL* grad_send, REAL* grad_send_back) {
    hear_backward(*graph, send, send_back, heard, slopes, grad_table, grad_a, grad_b, grad_send, grad_send_back);
}

void receive(int64_t neurons, int64_t hidden, int32_t threads, const REAL* gate, const REAL* heard, const REAL* roots,
             const REAL* least, REAL* out) {
    receive_all(neurons, hidden, threads, *least, gate, heard, roots, out);
}

void receive_backward(int64_t neurons, int64_t hidden, int32_t threads, const REAL* gate, const REAL* heard,
                      const REAL* roots, const REAL* messages, const REAL* gradient, REAL* of_gate, REAL* slopes) {
    receive_all_backward(neurons, hidden, threads, gate, heard, roots, messages, gradient, of_gate, slopes);
}

void decode(const Graph* graph, const REAL* out_table, REAL* out) { decode_states(*graph, out_table, out); }

void decode_backward(const Graph* graph, const REAL* out_table, const REAL* grad_out, REAL* grad_table,
                     REAL* const* grad_a, REAL* const* grad_b, REAL* grad_out_table) {
    decode_states_backward(*graph, out_table, grad_out, grad_table, grad_a, grad_b, grad_out_table);
}
}

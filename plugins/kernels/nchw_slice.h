// NCHW: where a slice of a unit lies in memory, and how its threads hold it.
#pragma once
#include "affine.h"
#include "statistics.h"
#include "tiles.h"

namespace gn {

// Those who work on a slice: a block's threads, or a warp's. The vectors of a slice are dealt out in rows of 32, each
// warp gets as many consecutive rows as a thread holds vectors: a thread's vectors are a constant apart.
struct Crew {
    uint32_t index, size;
    // The first vector of this thread, of `vectors`.
    GN_DEVICE int32_t first(int vectors) const {
        return static_cast<int32_t>(index / 32 * 32 * static_cast<uint32_t>(vectors) + index % 32);
    }
    // How many vectors of a slice it has.
    GN_DEVICE int share(const int32_t slice, int vectors) const {
        const int32_t rows = (slice + 31 - first(vectors)) >> 5;  // negative beyond the slice
        return rows < 0 ? 0 : rows < vectors ? rows : vectors;
    }
};

// A unit lies in one piece, and may begin anywhere. Its whole 16-byte vectors, aligned in memory, are divided among the
// slices; the elements before them, fewer than a vector, are the first slice's, those after them the last one's. A
// slice may be empty. Numbers within a slice are 32-bit.
struct Slice {
    int64_t origin;           // the element of x with which the first vector begins
    int32_t sample;
    int32_t vectors;
    int32_t lead, trail;      // elements before and after the vectors
    int32_t first, channels;  // channels of the sample
    uint32_t offset;          // element e from the origin on is of channel first + (offset + e) / P
    uint32_t period;          // P, or kLongPositions

    // The element of the lead or the trail that this thread holds: the first threads one of the lead each, those
    // from 16 on one of the trail, the others none.
    GN_DEVICE int32_t extra(int vector, const Crew &crew) const {
        const int32_t t = static_cast<int32_t>(crew.index);
        if (t < lead) return t - lead;
        return t >= 16 && t - 16 < trail ? vectors * vector + t - 16 : kNone;
    }
    static constexpr int32_t kNone = -16;
    GN_DEVICE int32_t elements(int vector) const { return lead + vectors * vector + trail; }
};

// Those elements, kept in shared memory, each by its thread for itself: there it takes no register.
struct alignas(8) Extra {
    static constexpr uint32_t kThreads = 24;
    float value;
    int32_t element;
};
static_assert(kWarps * Extra::kThreads * sizeof(Extra) <= kReservedBytes);

// This thread's; only the first Extra::kThreads have one. Its address is found anew each time, and not kept beside x.
template <class Any>
GN_DEVICE Any &extra_of(Any *extras, const Crew &crew) {
    uint32_t index = crew.index;
    forget(index);
    return extras[index];
}

// Sets the channels of a slice of `elements`, `into` of them after the begin of channel `first`.
GN_DEVICE void set_channels(Slice &s, const Arguments &a, uint32_t into, uint32_t elements) {
    s.offset = into + static_cast<uint32_t>(s.lead);
    s.channels = elements ? static_cast<int32_t>(divide(into + elements - 1, a.by_positions)) + 1 : 0;
}

template <bool wide>
struct Wide {
    using Type = uint32_t;
};
template <>
struct Wide<true> {
    using Type = uint64_t;
};

// But for its channels. `wide`: units may have 2^30 elements and more. There are fewer than 2^31 of them (gn_check).
template <int dtype, bool wide>
GN_DEVICE Slice vectors_of(const Arguments &a, int64_t unit, uint32_t rank) {
    constexpr int kVector = Number<dtype>::kVector;
    using Count = typename Wide<wide>::Type;
    const int64_t start = unit * a.length;
    const Count length = static_cast<Count>(a.length);
    const uint32_t past = (a.phase + static_cast<uint32_t>(start)) % kVector;
    const uint32_t gap = (kVector - past) % kVector;
    const uint32_t head = gap < length ? gap : static_cast<uint32_t>(length);
    const Count whole = (length - head) / kVector;
    const Count before = static_cast<Count>(rank) * static_cast<uint32_t>(a.slice);
    const Count begin = before < whole ? before : whole;
    const Count left = whole - begin;

    Slice s;
    s.vectors = left < static_cast<uint32_t>(a.slice) ? static_cast<int32_t>(left) : a.slice;
    s.lead = rank == 0 ? static_cast<int32_t>(head) : 0;
    s.trail = rank + 1 == static_cast<uint32_t>(a.slices) ? static_cast<int32_t>((length - head) % kVector) : 0;
    s.origin = start + head + static_cast<int64_t>(begin) * kVector;
    return s;
}

template <int dtype, bool wide>
GN_DEVICE void find_channels(Slice &s, const Arguments &a, int64_t unit) {
    using Count = typename Wide<wide>::Type;
    const Count from = static_cast<Count>(s.origin - s.lead - unit * a.length);  // of the unit
    s.period = a.by_positions.divisor;
    uint32_t channel, into;
    if (wide && a.length >= kLongPositions) {
        const int64_t whole_channels = a.flat ? 0 : static_cast<int64_t>(from) / a.positions;
        const int64_t to_next = a.flat ? kLongPositions : (whole_channels + 1) * a.positions - static_cast<int64_t>(from);
        channel = static_cast<uint32_t>(whole_channels);
        into = to_next < s.period ? s.period - static_cast<uint32_t>(to_next) : 0;
    } else {
        channel = divide(static_cast<uint32_t>(from), a.by_positions);
        into = static_cast<uint32_t>(from) - channel * s.period;
    }
    set_channels(s, a, into, static_cast<uint32_t>(s.elements(Number<dtype>::kVector)));
    s.sample = static_cast<int32_t>(divide(static_cast<uint32_t>(unit), a.by_slabs));
    s.first = (static_cast<int32_t>(unit) - s.sample * a.groups) * a.group_channels + static_cast<int32_t>(channel);
}

template <int dtype, bool wide>
GN_DEVICE Slice slice_of(const Arguments &a, int64_t unit, uint32_t rank) {
    Slice s = vectors_of<dtype, wide>(a, unit, rank);
    find_channels<dtype, wide>(s, a, unit);
    return s;
}

// `vectors` of a slice from its vector `begin` on; the lead goes with the first, the trail with the last.
template <int dtype>
GN_DEVICE Slice part_of(const Slice &whole, const Arguments &a, int32_t begin, int32_t vectors) {
    constexpr int kVector = Number<dtype>::kVector;
    Slice s = whole;
    const bool last = begin + vectors >= whole.vectors;
    s.vectors = last ? whole.vectors - begin : vectors;
    s.lead = begin == 0 ? whole.lead : 0;
    s.trail = last ? whole.trail : 0;
    s.origin = whole.origin + static_cast<int64_t>(begin) * kVector;
    const uint32_t from = whole.offset + static_cast<uint32_t>(begin * kVector - s.lead);
    const uint32_t channel = divide(from, a.by_positions);
    s.first = whole.first + static_cast<int32_t>(channel);
    set_channels(s, a, from - channel * s.period, static_cast<uint32_t>(s.elements(kVector)));
    return s;
}

template <class Stored>
GN_DEVICE const Stored *at(const void *tensor, const Slice &s) {
    return static_cast<const Stored *>(tensor) + s.origin;
}
template <class Stored>
GN_DEVICE Stored *at(void *tensor, const Slice &s) {
    return static_cast<Stored *>(tensor) + s.origin;
}

// use(i, vector i) in a loop of few instructions: only the first registers are ever used, and the others move up. After
// `vectors` rounds all are where they were.
template <int vectors, class Use>
GN_DEVICE void each_in_turn(Bits128 (&held)[vectors], int count, Use use) {
#pragma unroll 1
    for (int i = 0; i < count; ++i) {
        Bits128 first = held[0];
        use(i, first);
#pragma unroll
        for (int j = 0; j + 1 < vectors; ++j) held[j] = held[j + 1];
        held[vectors - 1] = first;
    }
}

// A team's block copies the first vectors of each thread's share of the next unit to shared memory, where only that thread
// reads them, so that memory is never idle while the block computes or waits for others. Those of a warp lie as in x.
GN_DEVICE Bits128 *ahead_of(const Arguments &a, uint32_t index) {
    return reinterpret_cast<Bits128 *>(shared() + a.ahead_at) + (index / 32 * static_cast<uint32_t>(a.ahead) * 32 + index % 32);
}
// What is to be copied: found before x fills the registers.
struct Ahead {
    const Bits128 *from;
    int count;
};
template <int dtype>
GN_DEVICE Ahead ahead_in(const Slice &s, const Arguments &a, int vectors) {
    const Crew crew{thread(), threads()};
    const int share = crew.share(s.vectors, vectors);
    return Ahead{reinterpret_cast<const Bits128 *>(at<typename Number<dtype>::Stored>(a.x, s)) + crew.first(vectors),
                 share < a.ahead ? share : a.ahead};
}
template <int vectors>
GN_DEVICE void copy_ahead(const Ahead &next, const Arguments &a) {
    const Bits128 *from = next.from;
    Bits128 *to = ahead_of(a, thread());
    forget(from), forget(to);  // else every address is computed anew
#pragma unroll
    for (int j = 0; j < vectors; ++j) {
        if (j < next.count) copy(to + j * 32, from + j * 32);
    }
}
template <int vectors>
GN_DEVICE void take_ahead(Bits128 (&held)[vectors], int count, const Arguments &a, uint32_t index) {
    const Bits128 *from = ahead_of(a, index);
    const int copied = count < a.ahead ? count : a.ahead;
    forget(from);
    copies_arrived();
#pragma unroll
    for (int j = 0; j < vectors; ++j) {
        if (j < copied) held[j] = from[j * 32];
    }
}

enum Loading {
    kStraight,
    kLooped,  // a register that only some threads load looks filled before, all the way round a loop, unless it is
    kAhead    // in a loop, and the first a.ahead vectors of each thread have been copied
};

// x + residual. In stages, of as many vectors of each as there are registers for: 6, 3 and 1 of 10.
template <int dtype, Loading loading, int vectors>
GN_DEVICE void load_sum(Bits128 (&held)[vectors], const Bits128 *from, const Slice &s, const Arguments &a, const Crew &crew,
                        int count, const void *residual, void *sum) {
    using Stored = typename Number<dtype>::Stored;
    const Bits128 *more = reinterpret_cast<const Bits128 *>(at<Stored>(residual, s)) + crew.first(vectors);
    Bits128 *to = reinterpret_cast<Bits128 *>(at<Stored>(sum, s)) + crew.first(vectors);
    forget(from), forget(more), forget(to);
    if (loading == kAhead) copies_arrived();
    constexpr int kMost = vectors == 8 ? 8 : loading != kStraight ? 11 : 12;  // in registers at a time, the most without spills
    Bits128 other[vectors];
    int end = 0;
#pragma unroll
    for (int j = 0; j < vectors; ++j) {
        if (j == end) {
            end += j < kMost - 1 ? (kMost - j) / 2 : 1;
#pragma unroll
            for (int k = j; k < (end < vectors ? end : vectors); ++k) {
                other[k] = Bits128{}, forget(other[k]);
                if (loading != kStraight) held[k] = Bits128{}, forget(held[k]);
                if (k < count && !(loading == kAhead && k < a.ahead)) held[k] = load_once(from + k * 32);
                if (k < count) other[k] = load_once(more + k * 32);
            }
        }
        if (j < count) {
            if (loading == kAhead && j < a.ahead) held[j] = ahead_of(a, crew.index)[j * 32];
            add<dtype>(held[j], other[j]);
            if (sum) store(to + j * 32, held[j]);
        }
    }
}

// Loads a slice, all of it before any of it is used; adds the residual, and writes the sum if asked.
template <int dtype, Loading loading, int vectors>
GN_DEVICE void load_slice(Bits128 (&held)[vectors], Extra *extras, const Slice &s, const Arguments &a, const Crew &crew,
                          int count, const void *tensor, const void *residual, void *sum) {
    using Stored = typename Number<dtype>::Stored;
    constexpr int kVector = Number<dtype>::kVector;
    const Bits128 *from = reinterpret_cast<const Bits128 *>(at<Stored>(tensor, s)) + crew.first(vectors);
    const int32_t rest = s.vectors - crew.first(vectors);
    const bool may = crew.index < Extra::kThreads;
    if (may) extra_of(extras, crew).element = s.extra(kVector, crew);  // before x: lead and trail are not kept beside it
    if (residual && !a.scattered) {
        load_sum<dtype, loading>(held, from, s, a, crew, count, residual, sum);
    } else if (a.scattered && tensor != a.x) {  // the sum, whose vectors begin elsewhere
        each_in_turn(held, vectors, [&](int i, Bits128 &vector) {
            const int32_t k = (crew.first(vectors) + i * 32) * kVector;
            if (i < count) vector = load_elements<dtype>(at<Stored>(tensor, s) + k);
        });
    } else {
        forget(from);  // else every address is computed anew
#pragma unroll
        for (int j = 0; j < vectors; ++j) {
            if (loading != kStraight) held[j] = Bits128{}, forget(held[j]);
            if (j * 32 < rest && !(loading == kAhead && j < a.ahead)) held[j] = load_once(from + j * 32);
        }
        if constexpr (loading == kAhead) take_ahead(held, count, a, crew.index);
    }
    if (may) {
        Extra &mine = extra_of(extras, crew);
        const int32_t e = mine.element;
        float value = 0.0f;
        if (e != Slice::kNone) {
            value = Number<dtype>::widen(load(at<Stored>(tensor, s) + e));
            if (residual) {
                const Stored added = load(at<Stored>(residual, s) + e);
                const Stored rounded = Number<dtype>::narrow(value + Number<dtype>::widen(added));
                value = Number<dtype>::widen(rounded);
                if (sum) store(at<Stored>(sum, s) + e, rounded);
            }
        }
        mine.value = value;
    }
    if (residual && a.scattered) {
        each_in_turn(held, vectors, [&](int i, Bits128 &vector) {
            if (i >= count) return;
            const int32_t k = (crew.first(vectors) + i * 32) * kVector;
            add<dtype>(vector, load_elements<dtype>(at<Stored>(residual, s) + k));
            if (sum) store_elements<dtype>(at<Stored>(sum, s) + k, vector);
        });
    }
}

// The statistics of what a thread holds; pivoted formats become what they are above the pivot.
template <int dtype, int vectors>
GN_DEVICE Partial measure_slice(Bits128 (&held)[vectors], Extra *extras, const Crew &crew, int count) {
    const bool may = crew.index < Extra::kThreads;
    float value = may ? extra_of(extras, crew).value : 0.0f;
    const Partial p = measure<dtype>(held, count, may && extra_of(extras, crew).element != Slice::kNone, value);
    if (may && Number<dtype>::kPivoted) extra_of(extras, crew).value = value;
    return p;
}

}  // namespace gn

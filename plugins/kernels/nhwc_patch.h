// NHWC: which positions and channels a block has, and how its threads hold them.
#pragma once
#include "nchw_apply.h"
#include "tiles.h"

namespace gn {

// A block's part of a unit: positions, a row each, and channels, a column for each 16 bytes of a row. Columns are
// aligned in memory unless a.scattered; so the first may begin before the slab, and the last may end after it.
struct Patch {
    int64_t sample, position, rows;  // position: the first of `rows`
    uint32_t base;                   // channel with which the first column begins
    uint32_t begin, end;             // channels of the patch
    uint32_t groups;                 // of the patch; of one group alone it may hold a part
    bool last;                       // what follows its channels is padding

    GN_DEVICE uint32_t channels_of_group(const Arguments &a) const {
        return groups == 1 ? end - begin : static_cast<uint32_t>(a.group_channels);
    }
};

template <int dtype>
GN_DEVICE Patch patch_of(const Arguments &a, int64_t unit, uint32_t rank) {
    constexpr uint32_t kVector = Number<dtype>::kVector;
    const uint32_t sample = divide(static_cast<uint32_t>(unit), a.by_slabs);
    const uint32_t slab = static_cast<uint32_t>(unit) - sample * static_cast<uint32_t>(a.slabs);
    const uint32_t row = divide(rank, a.by_column_slices), column = rank - row * static_cast<uint32_t>(a.column_slices);
    const uint32_t first = slab * static_cast<uint32_t>(a.slab), channels = static_cast<uint32_t>(a.channels);
    const uint32_t width = static_cast<uint32_t>(a.columns) * kVector;
    const uint32_t after = channels - first > static_cast<uint32_t>(a.slab) ? first + static_cast<uint32_t>(a.slab) : channels;

    Patch p;
    p.sample = sample;
    p.base = (a.scattered ? first : first / kVector * kVector) + column * width;
    p.begin = first > p.base ? first : p.base;
    p.end = after < p.base + width ? after : p.base + width;
    p.groups = a.slab == a.group_channels ? 1 : divide(p.end - p.begin, a.by_group_channels);
    p.position = row * a.rows;
    p.rows = a.positions - p.position < a.rows ? a.positions - p.position : a.rows;
    p.last = p.end == channels;
    return p;
}

// A thread's column, and the first of its rows; the next is `stride` rows further.
struct Place {
    uint32_t column, row, stride;
    uint32_t channel;   // with which its vectors begin
    int32_t first, end;  // elements of a vector that are of the patch
    bool works;

    GN_DEVICE int share(uint32_t rows, const Arguments &a) const {
        return works ? static_cast<int>(divide(rows + stride - 1 - row, a.by_rows)) : 0;
    }
    GN_DEVICE bool has(int k) const { return k >= first && k < end; }
    GN_DEVICE bool whole(int vector) const { return first == 0 && end == vector; }
};

// thread(), but what follows from it is found anew, not kept in registers beside x.
GN_DEVICE uint32_t this_thread() {
    uint32_t index = thread();
    forget(index);
    return index;
}

template <int dtype>
GN_DEVICE Place place_of(const Arguments &a, const Patch &p) {
    constexpr uint32_t kVector = Number<dtype>::kVector;
    const uint32_t index = this_thread();
    Place t;
    t.stride = a.by_rows.divisor;
    t.row = divide(index, a.by_columns);
    t.column = index - t.row * static_cast<uint32_t>(a.columns);
    t.channel = p.base + t.column * kVector;
    t.first = p.begin > t.channel ? static_cast<int32_t>(p.begin - t.channel) : 0;
    const uint32_t left = p.end > t.channel ? p.end - t.channel : 0;
    t.end = static_cast<int32_t>(left < kVector ? left : kVector);
    t.works = t.row < t.stride && t.end > t.first;
    return t;
}

// The element of a tensor with which the thread's first vector begins, `begin` rows after the patch.
GN_DEVICE int64_t offset_of(const Arguments &a, const Patch &p, const Place &t, int64_t begin, int64_t pitch) {
    return (p.sample * a.positions + p.position + begin + t.row) * pitch + t.channel;
}

template <int dtype>
GN_DEVICE Bits128 load_some(const typename Number<dtype>::Stored *address, int end) {
    Bits128 vector{{0, 0, 0, 0}};
#pragma unroll
    for (int k = 0; k < Number<dtype>::kVector; ++k) {
        if (k >= end) break;
        const uint32_t bits = load(address + k);
        vector.word[k * 4 / Number<dtype>::kVector] |= Number<dtype>::kVector == 4 ? bits : bits << k % 2 * 16;
    }
    return vector;
}

// What of a vector is the patch's, and zeros for the padding after it.
template <int dtype>
GN_DEVICE void store_some(typename Number<dtype>::Stored *address, const Bits128 &vector, const Patch &p, const Place &t,
                          const Arguments &a) {
    using Stored = typename Number<dtype>::Stored;
    constexpr int kVector = Number<dtype>::kVector;
    const bool pads = p.last && !a.scattered;
    if (t.whole(kVector) && !a.scattered) {
        store(reinterpret_cast<Bits128 *>(address), vector);
        return;
    }
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
        const uint32_t word = vector.word[k * 4 / kVector];
        const Stored value = static_cast<Stored>(kVector == 4 ? word : word >> k % 2 * 16);
        if (t.has(k) || (pads && k >= t.end)) store(address + k, t.has(k) ? value : Stored{0});
    }
}

// As for NCHW: the first rows of a thread's share of the next patch.
template <int dtype>
GN_DEVICE void copy_ahead(const Patch &p, const Arguments &a) {
    const Place t = place_of<dtype>(a, p);
    const int count = t.share(static_cast<uint32_t>(p.rows), a);
    const typename Number<dtype>::Stored *from =
        static_cast<const typename Number<dtype>::Stored *>(a.x) + offset_of(a, p, t, 0, a.pitch);
    Bits128 *to = ahead_of(a, this_thread());
#pragma unroll 1
    for (int j = 0; j < count && j < a.ahead; ++j) {
        copy(to + j * 32, reinterpret_cast<const Bits128 *>(from));
        from += a.step;
    }
}

// Loads `count` rows, all of them before any is used. In a loop the others become zeros: see Loading.
template <int dtype, Loading loading, int vectors>
GN_DEVICE void load_rows(Bits128 (&held)[vectors], const Arguments &a, const Patch &p, const Place &t, int64_t begin,
                         int count, const void *tensor) {
    using Stored = typename Number<dtype>::Stored;
    const Stored *from = static_cast<const Stored *>(tensor) + offset_of(a, p, t, begin, a.pitch);
    if (a.scattered) {
#pragma unroll
        for (int j = 0; loading != kStraight && j < vectors; ++j) held[j] = Bits128{}, forget(held[j]);
        each_in_turn(held, vectors, [&](int i, Bits128 &vector) {
            vector = i < count ? load_some<dtype>(from + i * a.step, t.end) : Bits128{};
        });
        return;
    }
#pragma unroll
    for (int j = 0; j < vectors; ++j) {
        if (loading != kStraight) held[j] = Bits128{}, forget(held[j]);
        if (j < count && !(loading == kAhead && j < a.ahead)) held[j] = load_once(reinterpret_cast<const Bits128 *>(from));
        from += a.step;
        forget(from);  // else every address is computed from the first
    }
    if constexpr (loading == kAhead) take_ahead(held, count, a, this_thread());
}

// Adds the residual to rows that are loaded, and writes the sum if asked.
template <int dtype, int vectors>
GN_DEVICE void add_rows(Bits128 (&held)[vectors], const Arguments &a, const Patch &p, int64_t begin, int count,
                        const void *residual, void *sum) {
    using Stored = typename Number<dtype>::Stored;
    const Place t = place_of<dtype>(a, p);
    int64_t at = offset_of(a, p, t, begin, a.pitch);
    const auto more = [&](int64_t i) { return static_cast<const Stored *>(residual) + i; };
    const auto to = [&](int64_t i) { return static_cast<Stored *>(sum) + i; };
    if (a.scattered || (sum && !t.whole(Number<dtype>::kVector))) {
        each_in_turn(held, vectors, [&](int i, Bits128 &vector) {
            if (i >= count) return;
            add<dtype>(vector, a.scattered ? load_some<dtype>(more(at), t.end)
                                           : load_once(reinterpret_cast<const Bits128 *>(more(at))));
            if (sum) store_some<dtype>(to(at), vector, p, t, a);
            at += a.step;
        });
        return;
    }
    constexpr int kBatch = vectors > 5 ? 2 : vectors;  // in flight beside all of x
#pragma unroll
    for (int j = 0; j < vectors; j += kBatch) {
        Bits128 batch[kBatch];
#pragma unroll
        for (int b = 0; b < kBatch; ++b) batch[b] = Bits128{}, forget(batch[b]);  // as in load_rows
#pragma unroll
        for (int b = 0; b < kBatch; ++b) {
            if (j + b < count) batch[b] = load_once(reinterpret_cast<const Bits128 *>(more(at + b * a.step)));
        }
#pragma unroll
        for (int b = 0; b < kBatch; ++b) {
            if (j + b >= count) break;
            add<dtype>(held[j + b], batch[b]);
            if (sum) store(reinterpret_cast<Bits128 *>(to(at + b * a.step)), held[j + b]);
        }
        at += kBatch * a.step;
    }
}

// Zeros for the columns after the last: in rows of `pitch` elements of T, those of the patch.
template <class T>
GN_DEVICE void pad(T *tensor, const Arguments &a, const Patch &p, int64_t pitch, uint32_t vector) {
    const int64_t from = a.scattered ? a.channels : (a.channels + int64_t{vector} - 1) / vector * vector;
#pragma unroll 1
    for (int64_t row = this_thread(); row < p.rows; row += threads()) {
        T *here = tensor + (p.sample * a.positions + p.position + row) * pitch;
#pragma unroll 1
        for (int64_t c = from; c < pitch; ++c) store(here + c, T{0});
    }
}

template <int dtype>
GN_DEVICE void pad_output(const Arguments &a, const Patch &p) {
    using Stored = typename Number<dtype>::Stored;
    constexpr uint32_t kVector = Number<dtype>::kVector;
    if (!p.last || a.output_pitch == a.channels) return;
    if (a.output_dtype >= GN_I8) {
        pad(static_cast<uint8_t *>(a.y), a, p, a.output_pitch, kVector);
    } else {
        pad(static_cast<Stored *>(a.y), a, p, a.output_pitch, kVector);
    }
}
template <int dtype>
GN_DEVICE void pad_sum(const Arguments &a, const Patch &p) {
    using Stored = typename Number<dtype>::Stored;
    if (a.sum && p.last && a.pitch != a.channels) pad(static_cast<Stored *>(a.sum), a, p, a.pitch, Number<dtype>::kVector);
}

}  // namespace gn

// The tiles that kernels are compiled for and the sizes of what they exchange: what the choice and the kernels agree on.
#pragma once
#include <stdint.h>

namespace gn {

constexpr int kVectorBytes = 16;  // the widest load
constexpr int kThreads = 512;     // of a block at most, a multiple of 32; two blocks on a multiprocessor ...
constexpr int kRegisters = 64;    // ... at this many registers a thread: 2 * 512 * 64 is the register file since sm_70

// 16-byte vectors of x that a thread holds, smallest first. At kRegisters the largest leaves 24 for everything else.
constexpr int kVectors[] = {2, 5, 10};    // block, cluster, team: 16, 40 and 80 KB for a block of kThreads
constexpr int kWarpVectors[] = {2, 4, 8};  // warp: 1, 2 and 4 KB for a unit
constexpr int kSplitVectors = 5;          // split: a chunk is read tile by tile, 40 KB each
constexpr int kWarps = 8;                 // units, so warps, in a block of the warp variant, at most
constexpr int kChunks = 1024;             // of a unit at most: every block of the second kernel reads them all

// What a block tells the others of its part of a group (statistics.h). Team: counter and slot[parity][rank][group of the
// slab] for each team; split: slot[unit][group of the slab][chunk].
constexpr int kPartialBytes = 16;
constexpr int kSlotWords = kPartialBytes / 4;
constexpr int kCounterStride = 32;  // 32-bit integers from a team's counter to its slots: a cache line

// NHWC: a thread keeps to one column, a vector of a row, and a block is `rows` whole rows of columns.
constexpr int kColumns = 256;           // of a block; a wider slab is one group and its columns are sliced as well
constexpr int kSlabBytes = 64;          // a row of a slab is at least this wide: a burst of memory
constexpr int kSlabGroups = 32;         // of a slab at most: of one channel in 16 bit they are kSlabBytes
constexpr int kChannelBytes = 12;       // NHWC, of shared memory for a channel: slope, offset and origin
constexpr int kSharedBytes = 49152;     // of a block, at most: what needs no opt-in
constexpr int kFirstWithCopies = 80;    // compute capability from which copies to shared memory go on by themselves
constexpr int kReservedBytes = 1664;    // of shared memory besides what is reduced: three of 16 bytes for each group
constexpr int kMbarrierAt = kReservedBytes - 16;  // in shared memory, a cluster's; before it NCHW's slots of its blocks
constexpr int kClusterBlocks = 8;                 // of a cluster, at most

}  // namespace gn

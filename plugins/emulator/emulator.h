// What tests ask of the emulated GPU: its size, its memory, the schedule of its threads, and what went through it.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "../kernels/gn.h"

#ifdef __cplusplus
extern "C" {
#endif

// The device that gn_query_device tells and launches are checked against.
void gn_emulator_device(const gn_device *device);

// In which order threads run. Whatever it is, the results must be the same bits.
typedef enum {
    GN_IN_ORDER,  // a thread runs until it must wait; the lowest block, warp and lane first
    GN_REVERSED,  // the highest first
    GN_RANDOM,    // any; interrupted at random loads, stores, arrivals and spins
    GN_SKEWED     // as random, but some blocks and warps run as far ahead of others as they can
} gn_schedule;
void gn_emulator_schedule(int schedule, uint64_t seed);

// Once any buffer is registered, every access to global memory must lie in one, aligned to its width.
typedef enum {
    GN_INPUT = 1,      // read only
    GN_OUTPUT = 2,     // each element is written once a launch, and not read after it in the same one
    GN_WORKSPACE = 4,  // its contents are unknown before the first launch; blocks exchange data through it
    GN_COUNTERS = 8    // as a workspace, but known
} gn_emulator_use;
// The number of the buffer, or -1.
int gn_emulator_buffer(const void *address, size_t bytes, int use, const char *name);
void gn_emulator_forget_buffers(void);

// Memory that costs nothing until it is touched, for offsets beyond 32 bits. Null where there is none.
void *gn_emulator_reserve(size_t bytes);
void gn_emulator_release(void *memory, size_t bytes);
// Run only these blocks of the launches to come that are neither cooperative nor in clusters, counted from the end for a
// launch that overlaps the one before; 0, 0 runs all.
void gn_emulator_only_blocks(int64_t first, int64_t end);

typedef struct {
    int64_t loaded, stored;            // bytes
    int64_t loads, stores;             // instructions of one thread
    int64_t wide_loads, wide_stores;   // those of 128 bits
    int64_t launches, blocks, barriers, switches;  // of all buffers together only
} gn_traffic;
// Since the last reset; `buffer` -1 is all of them.
void gn_emulator_traffic(int buffer, gn_traffic *traffic);
void gn_emulator_reset_traffic(void);

// Why the last launch failed, or an empty text.
const char *gn_emulator_error(void);

#ifdef __cplusplus
}
#endif

// What is computed, on which device, and how it is run: plain structs and C functions, the only door to the kernels.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// y = act((x [+ residual] - mean) / sqrt(var + epsilon) * scale * (1 + s) + bias * (1 + s) + t)
//
// mean and var (biased) over each sample's C / G consecutive channels and all positions (Wu & He 2018, eq. 1-2), in
// float32 whatever the type of x. Layouts: NCHW is (N, C, P), NHWC is (N, P, C), P the product of the spatial sizes.

typedef enum { GN_F32, GN_F16, GN_BF16, GN_I8, GN_E4M3 } gn_dtype;
typedef enum { GN_NONE, GN_RELU, GN_SILU, GN_HARDSWISH, GN_GELU, GN_GELU_TANH, GN_MISH } gn_activation;
typedef enum { GN_NCHW, GN_NHWC } gn_layout;

// The order is the order of preference in reports, and a variant's number plus one is its TensorRT tactic.
typedef enum {
    GN_WARP,     // a warp for each unit, several units in a block; NCHW only
    GN_BLOCK,    // a block for each unit, x held in registers
    GN_CLUSTER,  // a cluster of blocks for each unit, statistics exchanged over distributed shared memory; sm_90 and later
    GN_TEAM,     // persistent teams of blocks walk over the units and load one while they compute another; cooperative launch
    GN_SPLIT,    // two kernels: statistics of chunks, then everything else, last chunk first; x is read twice
    GN_VARIANTS
} gn_variant;
// A unit is what shares statistics: NCHW one group of one sample; NHWC a slab, which is whole groups of one sample: as
// many as make its rows a multiple of 16 bytes and at least 64 bytes wide, where C allows, or two, four, ... times as
// many, up to all of C: part of the choice, as wide rows are read faster and narrow ones make more units.

typedef enum {
    GN_OK = 0,
    GN_BAD_PROBLEM = 1,   // the problem contradicts itself or is not supported; the message says why
    GN_NOT_SUITED = 2,    // this variant cannot run this problem on this device; the message says why
    GN_BAD_POINTER = 3,   // a required pointer is null, or not aligned to its element
    GN_LAUNCH_FAILED = 4  // CUDA refused; the message holds its words
} gn_status;

typedef struct {
    int64_t samples, channels, positions;  // N, C, P; any may be 0: nothing is computed then
    int64_t pitch;                         // NHWC: elements from one position of x to the next, >= C (padded formats)
    int64_t output_pitch;                  // the same of y, when y has another type than x
    int32_t groups;                        // divides C
    float epsilon;
    int32_t layout;           // gn_layout
    int32_t dtype;            // of x, residual and sum: GN_F32, GN_F16, GN_BF16
    int32_t parameter_dtype;  // of scale, bias, s and t: GN_F32 or dtype
    int32_t output_dtype;     // of y: dtype, GN_I8 or GN_E4M3
    int32_t activation;       // gn_activation
    float output_scale;       // GN_I8, GN_E4M3: y = saturate(round to even(value / output_scale)); else ignored
    int32_t has_residual;     // residual is added to x, rounded to dtype, before the statistics
    int32_t has_sum;          // that sum is written too
    int32_t has_affine;       // bit 0: scale, bit 1: bias
    int32_t has_modulation;   // bit 0: s, bit 1: t
} gn_problem;

typedef struct {
    int32_t compute_capability;  // 10 * major + minor
    int32_t multiprocessors;
    int32_t registers;           // 32-bit, of one multiprocessor
    int32_t shared_per_block;    // bytes, opt-in
    int32_t shared;              // bytes, of one multiprocessor
    int32_t threads;             // resident on one multiprocessor, at most
    int64_t l2;                  // bytes
    int32_t cluster_blocks;      // largest portable cluster: 8 on sm_90 and later, 1 before
    int32_t cooperative;         // cooperative launches are supported
} gn_device;

typedef struct {
    int32_t variant;           // gn_variant
    int32_t vectors;           // 16-byte vectors of x that a thread holds: the kernel's compile-time tile
    int32_t threads;           // of a block
    int32_t slices;            // blocks that share a unit: size of the cluster or team, number of chunks; 1 otherwise
    int32_t slab;              // channels of a unit
    int64_t units;             // N * G, or N * ceil(C / slab)
    int64_t blocks;            // grid, of each of the kernels
    int32_t shared;            // bytes of dynamic shared memory
    int32_t ahead;             // GN_TEAM: vectors of a thread that are copied to shared memory while the unit before is computed
    int32_t counters;          // 32-bit integers, zero before the first launch and left zero by every launch
    int64_t workspace;         // bytes, contents irrelevant before and after
} gn_choice;

typedef struct {
    const void *x, *residual;              // shape of x
    const void *scale, *bias;              // (C,)
    const void *modulation_scale, *modulation_shift;  // s and t, (N, C)
    void *y, *sum;                         // shape of x
    void *workspace;                       // choice.workspace bytes, 16-byte aligned
    uint32_t *counters;                    // choice.counters integers, 16-byte aligned
} gn_buffers;

// All of them write one line, zero-terminated, into `message` (may be null when `size` is 0) whenever they do not
// return GN_OK; gn_select also when it does: why this variant, and why none of those before it.

int gn_check(const gn_problem *problem, char *message, size_t size);
// Pure: the best variant, or with `variant` >= 0 that one.
int gn_select(const gn_problem *problem, const gn_device *device, int variant, gn_choice *choice, char *message, size_t size);
// Workspace and counters that are enough, on that device and whatever the variant, for every problem that differs from
// `largest` by having fewer samples or positions. Zeros for a problem that is none.
void gn_room(const gn_problem *largest, const gn_device *device, int64_t *workspace, int32_t *counters);
const char *gn_variant_name(int variant);

// Checks the pointers and launches on `stream` (cudaStream_t); returns before the kernels have run.
int gn_enqueue(const gn_problem *problem, const gn_choice *choice, const gn_buffers *buffers, void *stream, char *message, size_t size);
int gn_query_device(int ordinal, gn_device *device, char *message, size_t size);

#ifdef __cplusplus
}
#endif

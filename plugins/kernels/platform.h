// All that kernels ask of the machine they run on; under GN_EMULATOR the same functions come from plugins/emulator.
#pragma once
#include <stdint.h>

namespace gn {
// Sixteen bytes, moved in one instruction.
struct alignas(16) Bits128 {
    uint32_t word[4];
};
struct alignas(8) Bits64 {
    uint32_t word[2];
};
// A barrier in shared memory that also counts bytes which blocks of the cluster send (PTX ISA, mbarrier): opaque.
struct alignas(8) Mbarrier {
    uint32_t word[2];
};
}  // namespace gn

#ifdef GN_EMULATOR
#include "../emulator/device.h"
#else

#define GN_DEVICE __device__ __forceinline__
#define GN_KERNEL(threads, blocks) __global__ void __launch_bounds__(threads, blocks)
// A parameter of a kernel that is read in place, never copied to the stack.
#define GN_PARAMETER const __grid_constant__

namespace gn {

// Where this thread is. Grids and blocks have one dimension.
GN_DEVICE uint32_t thread() { return threadIdx.x; }
GN_DEVICE uint32_t threads() { return blockDim.x; }
GN_DEVICE uint32_t block() { return blockIdx.x; }
GN_DEVICE uint32_t blocks() { return gridDim.x; }

// Dynamic shared memory, 16-byte aligned; its size is the launch's.
GN_DEVICE char *shared() {
    extern __shared__ __align__(16) char memory[];
    return memory;
}

// All threads of the block, or of the warp. Every thread takes part in a shuffle.
GN_DEVICE void barrier() { __syncthreads(); }
GN_DEVICE void warp_barrier() { __syncwarp(); }
GN_DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
GN_DEVICE float shuffle(float value, int lane) { return __shfl_sync(0xffffffffu, value, lane); }
// A barrier, or a warp's barrier, that also tells whether any thread came with `true`.
GN_DEVICE bool barrier_any(bool mine) { return __syncthreads_or(mine); }
GN_DEVICE bool warp_any(bool mine) { return __any_sync(0xffffffffu, mine); }

// Clusters. Their blocks start together, and each sends what it has into the shared memory of the others. An Mbarrier is
// opened by one thread, and is known to the cluster from the barrier on: all threads arrive, and wait before they send.
// `expect` by one thread: what arrives is complete after so many bytes. `send` puts 16 bytes where block `rank` has what
// this block has at `slot`, and counts them in its `barrier`. Who has been in `receive` may read them. Once only.
#if __CUDA_ARCH__ >= 900
constexpr bool kClusters = true;
GN_DEVICE uint32_t cluster_rank() {
    uint32_t rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
GN_DEVICE uint32_t cluster_blocks() {
    uint32_t blocks;
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(blocks));
    return blocks;
}
GN_DEVICE uint32_t shared_address(const void *own) { return static_cast<uint32_t>(__cvta_generic_to_shared(own)); }
GN_DEVICE void open(Mbarrier *barrier) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;\n fence.mbarrier_init.release.cluster;" ::"r"(
                     shared_address(barrier))
                 : "memory");
}
// Relaxed: but for Mbarriers, which `open` has released, nothing that was written before is seen by the others.
GN_DEVICE void cluster_arrive() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }
GN_DEVICE void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
GN_DEVICE void expect(Mbarrier *barrier, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
}
GN_DEVICE void send(const Bits128 &v, Bits128 *slot, Mbarrier *barrier, uint32_t rank) {
    asm volatile(
        "{\n .reg .u32 there, count;\n mapa.shared::cluster.u32 there, %0, %2;\n mapa.shared::cluster.u32 count, %1, %2;\n"
        " st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [there], {%3, %4, %5, %6}, [count];\n}" ::"r"(
            shared_address(slot)),
        "r"(shared_address(barrier)), "r"(rank), "r"(v.word[0]), "r"(v.word[1]), "r"(v.word[2]), "r"(v.word[3])
        : "memory");
}
GN_DEVICE void receive(Mbarrier *barrier) {
    asm volatile(
        "{\n .reg .pred done;\nagain:\n mbarrier.try_wait.parity.shared::cta.b64 done, [%0], 0;\n @!done bra again;\n}" ::"r"(
            shared_address(barrier))
        : "memory");
}
#else
constexpr bool kClusters = false;
GN_DEVICE uint32_t cluster_rank() { return 0; }
GN_DEVICE uint32_t cluster_blocks() { return 1; }
GN_DEVICE void open(Mbarrier *) {}
GN_DEVICE void cluster_arrive() {}
GN_DEVICE void cluster_wait() {}
GN_DEVICE void expect(Mbarrier *, uint32_t) {}
GN_DEVICE void send(const Bits128 &, Bits128 *, Mbarrier *, uint32_t) {}
GN_DEVICE void receive(Mbarrier *) {}
#endif

// Between blocks of a grid. What a block wrote before `arrive` is seen by whoever saw the count by `arrived`.
// Called by one thread, between barriers of its block: release and acquire are cumulative (PTX ISA, memory model).
GN_DEVICE uint32_t arrive(uint32_t *counter) {
    uint32_t before;
#if __CUDA_ARCH__ >= 700
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;" : "=r"(before) : "l"(counter) : "memory");
#endif
    return before;
}
GN_DEVICE uint32_t arrived(const uint32_t *counter) {
    uint32_t count;
#if __CUDA_ARCH__ >= 700
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(count) : "l"(counter) : "memory");
#endif
    return count;
}
// Sixteen bytes that other blocks see whole or not at all, and so know by a part of them that the rest is there.
GN_DEVICE void publish(Bits128 *slot, const Bits128 &v) {
    asm volatile(
        "{\n .reg .b64 low, high;\n .reg .b128 whole;\n mov.b64 low, {%1, %2};\n mov.b64 high, {%3, %4};\n"
        " mov.b128 whole, {low, high};\n st.relaxed.gpu.global.b128 [%0], whole;\n}" ::"l"(slot),
        "r"(v.word[0]), "r"(v.word[1]), "r"(v.word[2]), "r"(v.word[3])
        : "memory");
}
GN_DEVICE Bits128 published(const Bits128 *slot) {
    Bits128 v;
    asm volatile(
        "{\n .reg .b64 low, high;\n .reg .b128 whole;\n ld.relaxed.gpu.global.b128 whole, [%4];\n"
        " mov.b128 {low, high}, whole;\n mov.b64 {%0, %1}, low;\n mov.b64 {%2, %3}, high;\n}"
        : "=r"(v.word[0]), "=r"(v.word[1]), "=r"(v.word[2]), "=r"(v.word[3])
        : "l"(slot)
        : "memory");
    return v;
}
// The body of a loop that waits: lets the others run.
GN_DEVICE void pause() {}

// Copies of sixteen bytes to shared memory that go on beside what the thread does; all of its own are there, for itself,
// after `copies_arrived`.
#if __CUDA_ARCH__ >= 800
GN_DEVICE void copy(Bits128 *to, const Bits128 *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(static_cast<uint32_t>(__cvta_generic_to_shared(to))),
                 "l"(from)
                 : "memory");
}
GN_DEVICE void copies_arrived() { asm volatile("cp.async.wait_all;" ::: "memory"); }
#else
GN_DEVICE void copy(Bits128 *to, const Bits128 *from) { *to = *from; }
GN_DEVICE void copies_arrived() {}
#endif

// Global memory: all of it is read and written through these. `load` may be cached anywhere, `load_once` is streamed
// past the first-level cache, `load_shared_by_blocks` sees what other blocks of the same launch wrote.
template <class T>
GN_DEVICE T load(const T *address) {
    return __ldg(address);
}
template <>
GN_DEVICE Bits128 load(const Bits128 *address) {
    Bits128 v;
    asm("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(v.word[0]), "=r"(v.word[1]), "=r"(v.word[2]), "=r"(v.word[3])
        : "l"(address));
    return v;
}
// Not .nc: that may be postponed beyond stores, until it is needed, and loads would wait for each other.
GN_DEVICE Bits128 load_once(const Bits128 *address) {
    Bits128 v;
    asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(v.word[0]), "=r"(v.word[1]), "=r"(v.word[2]), "=r"(v.word[3])
        : "l"(address));
    return v;
}
GN_DEVICE float load_shared_by_blocks(const float *address) {
    float value;
    asm volatile("ld.relaxed.gpu.global.f32 %0, [%1];" : "=f"(value) : "l"(address) : "memory");
    return value;
}
template <class T>
GN_DEVICE void store(T *address, T value) {
    *address = value;
}
template <>
GN_DEVICE void store(Bits128 *address, Bits128 v) {
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(v.word[0]), "r"(v.word[1]), "r"(v.word[2]),
                 "r"(v.word[3])
                 : "memory");
}
template <>
GN_DEVICE void store(Bits64 *address, Bits64 v) {
    asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(address), "r"(v.word[0]), "r"(v.word[1]) : "memory");
}

// Two kernels in a row (programmatic dependent launch): the first lets the second start, the second waits for what the
// first wrote. Nothing happens when they were not launched that way.
#if __CUDA_ARCH__ >= 900
GN_DEVICE void let_next_start() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
GN_DEVICE void wait_for_previous() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
#else
GN_DEVICE void let_next_start() {}
GN_DEVICE void wait_for_previous() {}
#endif

// The compiler may not remember what it knew of `bits`: without it nvcc keeps unpacked copies alive, and spills.
GN_DEVICE void forget(uint32_t &bits) { asm volatile("" : "+r"(bits)); }
GN_DEVICE void forget(int32_t &number) { asm volatile("" : "+r"(number)); }
template <class T>
GN_DEVICE void forget(T *&address) {
    asm volatile("" : "+l"(address));
}

// float32 functions; errors in units in the last place (CUDA C++ Programming Guide, PTX ISA).
GN_DEVICE float fast_exp2(float x) {  // 2
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
GN_DEVICE float fast_reciprocal(float x) {  // 1
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
GN_DEVICE float fast_rsqrt(float x) {  // 2, of subnormal numbers as well: epsilon may be 0
    float y;
    asm("rsqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
GN_DEVICE float erfc(float x) { return ::erfcf(x); }               // 4
GN_DEVICE float multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }
// The larger one; NaN if either is.
GN_DEVICE float maximum(float a, float b) {
#if __CUDA_ARCH__ >= 800
    float larger;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
    return larger;
#else
    return a > b || a != a ? a : b;
#endif
}
GN_DEVICE float as_float(uint32_t bits) { return __uint_as_float(bits); }
GN_DEVICE uint32_t as_bits(float value) { return __float_as_uint(value); }

// 16-bit formats, rounded to nearest even, NaN stays NaN; of two in a word the first is the low half.
GN_DEVICE void from_f16x2(uint32_t bits, float &low, float &high) {
    asm("{\n .reg .f16 l, h;\n mov.b32 {l, h}, %2;\n cvt.f32.f16 %0, l;\n cvt.f32.f16 %1, h;\n}"
        : "=f"(low), "=f"(high)
        : "r"(bits));
}
GN_DEVICE uint32_t to_f16x2(float low, float high) {
    uint32_t bits;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
#else
    asm("{\n .reg .f16 l, h;\n cvt.rn.f16.f32 l, %1;\n cvt.rn.f16.f32 h, %2;\n mov.b32 %0, {l, h};\n}"
        : "=r"(bits)
        : "f"(low), "f"(high));
#endif
    return bits;
}
GN_DEVICE uint32_t to_bf16x2(float low, float high) {
    uint32_t bits;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
#else
    const auto rounded = [](uint32_t b) {
        return (b & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : (b + 0x7fffu + (b >> 16 & 1u)) >> 16;
    };
    bits = rounded(as_bits(low)) | rounded(as_bits(high)) << 16;
#endif
    return bits;
}

}  // namespace gn
#endif

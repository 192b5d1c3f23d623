// The functions of kernels/platform.h on the CPU: a GPU thread is a fiber, and every rule that can be checked is.
#pragma once
#include <string.h>

#include <cmath>

#include "../kernels/platform.h"
#include "machine.h"
#include "rounding.h"

#define GN_DEVICE inline
#define GN_KERNEL(threads, blocks) void
#define GN_PARAMETER const
// Barriers and shuffles know the line that calls them, so that threads which meet at different ones are found.
#define GN_EMULATOR_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace gn {
namespace emulator {

void barrier(const Site &site);
bool barrier_any(bool mine, const Site &site);
void warp_barrier(const Site &site);
bool warp_any(bool mine, const Site &site);
float shuffle(float value, int32_t mask, uint32_t lane, const Site &site);
void cluster_arrive(const Site &site);
void cluster_wait(const Site &site);
void open(Mbarrier *barrier, const Site &site);
void expect(Mbarrier *barrier, uint32_t bytes, const Site &site);
void send(const Bits128 &value, Bits128 *slot, Mbarrier *barrier, uint32_t rank, const Site &site);
void receive(Mbarrier *barrier, const Site &site);
uint32_t arrive(uint32_t *counter, const Site &site);
uint32_t arrived(const uint32_t *counter, const Site &site);
void publish(Bits128 *slot, const Bits128 &value, const Site &site);
Bits128 published(const Bits128 *slot, const Site &site);
void pause(const Site &site);
void copy(Bits128 *to, const Bits128 *from, const Site &site);
void copies_arrived();
void wait_for_previous();

void read(const void *address, void *value, size_t bytes, Way way);
void write(void *address, const void *value, size_t bytes);

}  // namespace emulator

GN_DEVICE uint32_t thread() { return emulator::self->index; }
GN_DEVICE uint32_t threads() { return emulator::launched->shape.threads; }
GN_DEVICE uint32_t block() { return static_cast<uint32_t>(emulator::self->block->index); }
GN_DEVICE uint32_t blocks() { return static_cast<uint32_t>(emulator::launched->shape.blocks); }
GN_DEVICE char *shared() { return emulator::self->block->memory.data(); }

GN_DEVICE void barrier(GN_EMULATOR_SITE) { emulator::barrier({"barrier", file, line}); }
GN_DEVICE void warp_barrier(GN_EMULATOR_SITE) { emulator::warp_barrier({"warp_barrier", file, line}); }
GN_DEVICE float shuffle_xor(float value, int mask, GN_EMULATOR_SITE) {
    return emulator::shuffle(value, mask, (emulator::self->index ^ static_cast<uint32_t>(mask)) % emulator::kLanes,
                             {"shuffle_xor", file, line});
}
GN_DEVICE float shuffle(float value, int lane, GN_EMULATOR_SITE) {
    return emulator::shuffle(value, 0, static_cast<uint32_t>(lane) % emulator::kLanes, {"shuffle", file, line});
}
GN_DEVICE bool barrier_any(bool mine, GN_EMULATOR_SITE) {
    return emulator::barrier_any(mine, {"barrier_any", file, line});
}
GN_DEVICE bool warp_any(bool mine, GN_EMULATOR_SITE) { return emulator::warp_any(mine, {"warp_any", file, line}); }

constexpr bool kClusters = true;
GN_DEVICE uint32_t cluster_rank() { return emulator::self->block->rank; }
GN_DEVICE uint32_t cluster_blocks() { return emulator::launched->shape.cluster; }
GN_DEVICE void cluster_arrive(GN_EMULATOR_SITE) { emulator::cluster_arrive({"cluster_arrive", file, line}); }
GN_DEVICE void cluster_wait(GN_EMULATOR_SITE) { emulator::cluster_wait({"cluster_wait", file, line}); }
GN_DEVICE void open(Mbarrier *barrier, GN_EMULATOR_SITE) { emulator::open(barrier, {"open", file, line}); }
GN_DEVICE void expect(Mbarrier *barrier, uint32_t bytes, GN_EMULATOR_SITE) {
    emulator::expect(barrier, bytes, {"expect", file, line});
}
GN_DEVICE void send(const Bits128 &value, Bits128 *slot, Mbarrier *barrier, uint32_t rank, GN_EMULATOR_SITE) {
    emulator::send(value, slot, barrier, rank, {"send", file, line});
}
GN_DEVICE void receive(Mbarrier *barrier, GN_EMULATOR_SITE) { emulator::receive(barrier, {"receive", file, line}); }

GN_DEVICE uint32_t arrive(uint32_t *counter, GN_EMULATOR_SITE) {
    return emulator::arrive(counter, {"arrive", file, line});
}
GN_DEVICE uint32_t arrived(const uint32_t *counter, GN_EMULATOR_SITE) {
    return emulator::arrived(counter, {"arrived", file, line});
}
GN_DEVICE void publish(Bits128 *slot, const Bits128 &value, GN_EMULATOR_SITE) {
    emulator::publish(slot, value, {"publish", file, line});
}
GN_DEVICE Bits128 published(const Bits128 *slot, GN_EMULATOR_SITE) {
    return emulator::published(slot, {"published", file, line});
}
GN_DEVICE void pause(GN_EMULATOR_SITE) { emulator::pause({"pause", file, line}); }

GN_DEVICE void copy(Bits128 *to, const Bits128 *from, GN_EMULATOR_SITE) { emulator::copy(to, from, {"copy", file, line}); }
GN_DEVICE void copies_arrived() { emulator::copies_arrived(); }

template <class T>
GN_DEVICE T load(const T *address) {
    T value;
    emulator::read(address, &value, sizeof value, emulator::Way::cached);
    return value;
}
GN_DEVICE Bits128 load_once(const Bits128 *address) {
    Bits128 value;
    emulator::read(address, &value, sizeof value, emulator::Way::streamed);
    return value;
}
GN_DEVICE float load_shared_by_blocks(const float *address) {
    float value;
    emulator::read(address, &value, sizeof value, emulator::Way::coherent);
    return value;
}
template <class T>
GN_DEVICE void store(T *address, T value) {
    emulator::write(address, &value, sizeof value);
}

GN_DEVICE void let_next_start() {}
GN_DEVICE void wait_for_previous() { emulator::wait_for_previous(); }

template <class T>
GN_DEVICE void forget(T &) {}

GN_DEVICE float fast_exp2(float x) { return emulator::fast_exp2(x); }
GN_DEVICE float fast_reciprocal(float x) { return emulator::fast_reciprocal(x); }
GN_DEVICE float fast_rsqrt(float x) { return emulator::disturbed(1.0 / std::sqrt(static_cast<double>(x)), 2); }
GN_DEVICE float erfc(float x) { return emulator::disturbed(std::erfc(static_cast<double>(x)), 4); }
GN_DEVICE float multiply_add(float a, float b, float c) { return std::fma(a, b, c); }
GN_DEVICE float maximum(float a, float b) { return a > b || a != a ? a : b; }
GN_DEVICE float as_float(uint32_t bits) { return emulator::float_of(bits); }
GN_DEVICE uint32_t as_bits(float value) { return emulator::bits_of(value); }

GN_DEVICE void from_f16x2(uint32_t bits, float &low, float &high) {
    low = emulator::from_f16(static_cast<uint16_t>(bits));
    high = emulator::from_f16(static_cast<uint16_t>(bits >> 16));
}
GN_DEVICE uint32_t to_f16x2(float low, float high) { return emulator::to_f16(low) | emulator::to_f16(high) << 16; }
GN_DEVICE uint32_t to_bf16x2(float low, float high) { return emulator::to_bf16(low) | emulator::to_bf16(high) << 16; }

}  // namespace gn

// A thread of the emulated GPU: a stack of its own, entered and left by a plain function call that swaps stacks.
#pragma once
#include <stddef.h>

// Saves the callee-saved registers on this stack, leaves its pointer in `from`, continues where `to` was left.
extern "C" void gn_emulator_switch(void **from, void *to);

namespace gn::emulator {

constexpr size_t kStack = 64 * 1024;  // bytes; only what is touched takes memory, and the lowest page faults
constexpr size_t kPage = 4096;

// Stacks are kept and used again. Null when the system has no more.
char *take_stack();
void give_stack(char *stack);
// The stack pointer of a fiber that will call `entry`, which never returns.
void *fresh(char *stack, void (*entry)());
// Whether this address lies in the page below some stack that must not be touched.
bool below_a_stack(const void *address);

}  // namespace gn::emulator

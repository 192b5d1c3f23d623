// Stacks and the switch between them, for x86-64 and aarch64.
#include "fiber.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include <vector>

#if defined(__x86_64__)
asm(R"(
.text
.p2align 4
.globl gn_emulator_switch
.hidden gn_emulator_switch
.type gn_emulator_switch, @function
gn_emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size gn_emulator_switch, .-gn_emulator_switch
)");
#elif defined(__aarch64__)
asm(R"(
.text
.p2align 4
.globl gn_emulator_switch
.hidden gn_emulator_switch
.type gn_emulator_switch, %function
gn_emulator_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size gn_emulator_switch, .-gn_emulator_switch
)");
#else
#error "The emulator switches stacks on x86-64 and aarch64 only: add the switch of this processor here"
#endif

namespace gn::emulator {
namespace {

constexpr size_t kSlab = 64;  // stacks mapped at once
std::vector<char *> spare, slabs;

}  // namespace

char *take_stack() {
    if (spare.empty()) {
        void *slab = mmap(nullptr, kSlab * kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (slab == MAP_FAILED) return nullptr;
        slabs.push_back(static_cast<char *>(slab));
        for (size_t i = kSlab; i-- > 0;) {
            char *stack = static_cast<char *>(slab) + i * kStack;
            if (mprotect(stack, kPage, PROT_NONE) != 0) return nullptr;
            spare.push_back(stack);
        }
    }
    char *stack = spare.back();
    spare.pop_back();
    return stack;
}

void give_stack(char *stack) { spare.push_back(stack); }

void *fresh(char *stack, void (*entry)()) {
    // Tops at different distances from the page's end: all at the same one would fight for the same few cache sets.
    const size_t colour = (reinterpret_cast<uintptr_t>(stack) / kStack % 61) * 64;
    char *top = stack + kStack - colour;
#if defined(__x86_64__)
    void **words = reinterpret_cast<void **>(top) - 8;
    memset(words, 0, 64);
    words[6] = reinterpret_cast<void *>(entry);
    return words;
#else
    void **words = reinterpret_cast<void **>(top) - 20;
    memset(words, 0, 160);
    words[11] = reinterpret_cast<void *>(entry);
    return words;
#endif
}

bool below_a_stack(const void *address) {
    for (const char *slab : slabs) {
        const char *at = static_cast<const char *>(address);
        if (at >= slab && at < slab + kSlab * kStack) return static_cast<size_t>(at - slab) % kStack < kPage;
    }
    return false;
}

}  // namespace gn::emulator

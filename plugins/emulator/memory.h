// Global memory: buffers that tests registered, checks of every access against them, and how much was moved.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <string>
#include <vector>

#include "emulator.h"
#include "machine.h"

namespace gn::emulator {

struct Buffer {
    uintptr_t begin = 0, end = 0;
    int use = 0;  // gn_emulator_use
    std::string name;
    gn_traffic traffic{};
    std::vector<uint8_t> written;  // for each byte the launch that wrote it, or kNever, kGiven; empty for an input
};

constexpr uint8_t kNever = 0, kGiven = 1;  // given: before the launches that are told apart

class Memory {
  public:
    int add(const void *address, size_t bytes, int use, const char *name);
    void clear();
    bool empty() const { return buffers_.empty(); }
    Buffer *find(uintptr_t address) {
        if (address < begin_ || address >= end_) return nullptr;
        Buffer &last = buffers_[last_];
        return address >= last.begin && address < last.end ? &last : find_other(address);
    }
    Buffer *at(int index) { return index >= 0 && index < static_cast<int>(buffers_.size()) ? &buffers_[index] : nullptr; }
    void begin_launch();  // nothing has been written or touched yet
    void check_read(const void *address, size_t bytes, Way way);
    bool check_write(const void *address, size_t bytes);  // whether somebody may be waiting for it
    void count(const void *counter, bool wait);  // by arrived(), or by arrive()
    void slot(const void *slot, bool write);     // by publish(), or by published()
    void check_unchanged(const void *address, size_t bytes);  // by this launch, while a copy of it was under way
    gn_traffic total{};
    void reset_traffic();

  private:
    Buffer *find_other(uintptr_t address);
    Buffer &checked(const void *address, size_t bytes, const char *verb);
    std::vector<Buffer> buffers_;
    size_t last_ = 0;                   // found last time
    uintptr_t begin_ = 1, end_ = 0;     // of all of them together
    uint8_t launch_ = kGiven + 1;
    SharedByBlocks shared_;
};

extern Memory memory;

}  // namespace gn::emulator

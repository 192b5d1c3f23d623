// Every access to global memory: inside a buffer, aligned, of a kind that the buffer allows, and counted.
#include "memory.h"

#include <string.h>

#include <algorithm>

#include "../kernels/platform.h"

namespace gn::emulator {

Memory memory;

namespace {

// Where in the bytes' history `launch` stands first; `bytes` where it does not.
size_t first(const uint8_t *written, size_t bytes, uint8_t launch) {
    const void *found = memchr(written, launch, bytes);
    return found == nullptr ? bytes : static_cast<size_t>(static_cast<const uint8_t *>(found) - written);
}

std::string place(const Buffer &buffer, uintptr_t address) {
    return buffer.name + "[byte " + std::to_string(address - buffer.begin) + " of " +
           std::to_string(buffer.end - buffer.begin) + "]";
}

bool previous_ended() { return self->waited || self->block->phase >= self->block->waited; }

}  // namespace

int Memory::add(const void *address, size_t bytes, int use, const char *name) {
    const uintptr_t begin = reinterpret_cast<uintptr_t>(address), end = begin + bytes;
    for (const Buffer &other : buffers_)
        if (begin < other.end && other.begin < end) return -1;
    Buffer buffer;
    buffer.begin = begin;
    buffer.end = end;
    buffer.use = use;
    buffer.name = name;
    if (use & (GN_OUTPUT | GN_WORKSPACE))
        buffer.written.assign(bytes, (use & GN_INPUT) ? kGiven : kNever);
    begin_ = buffers_.empty() ? begin : std::min(begin_, begin);
    end_ = buffers_.empty() ? end : std::max(end_, end);
    buffers_.push_back(std::move(buffer));
    return static_cast<int>(buffers_.size()) - 1;
}

void Memory::clear() {
    buffers_.clear();
    last_ = 0;
    begin_ = 1;
    end_ = 0;
    launch_ = kGiven + 1;
}

Buffer *Memory::find_other(uintptr_t address) {
    for (size_t i = 0; i < buffers_.size(); ++i)
        if (address >= buffers_[i].begin && address < buffers_[i].end) {
            last_ = i;
            return &buffers_[i];
        }
    return nullptr;
}

void Memory::begin_launch() {
    shared_.clear();
    if (++launch_ != 0) return;
    for (Buffer &buffer : buffers_)
        for (uint8_t &written : buffer.written)
            if (written > kGiven) written = kGiven;
    launch_ = kGiven + 2;  // so that nothing given looks as if the launch before had written it
}

Buffer &Memory::checked(const void *address, size_t bytes, const char *verb) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(address);
    Buffer *buffer = find(at);
    if (buffer == nullptr || bytes > buffer->end - at) {
        const Buffer *near = buffer;
        for (const Buffer &other : buffers_)  // the one that it just missed tells most
            if (near == nullptr || (buffer == nullptr && std::min(at - other.begin, at - other.end) <
                                                             std::min(at - near->begin, at - near->end)))
                near = &other;
        fail("%s %zu bytes out of bounds, at byte %lld of %s, which has %zu", verb, bytes,
             static_cast<long long>(at - near->begin), near->name.c_str(), static_cast<size_t>(near->end - near->begin));
    }
    if (at % bytes != 0) fail("%s %zu bytes at %s, which is not aligned to them", verb, bytes, place(*buffer, at).c_str());
    return *buffer;
}

void Memory::check_read(const void *address, size_t bytes, Way way) {
    const bool wide = bytes == 16;
    total.loaded += static_cast<int64_t>(bytes);
    ++total.loads;
    total.wide_loads += wide;
    if (buffers_.empty()) {
        if (reinterpret_cast<uintptr_t>(address) % bytes != 0) fail("reads %zu bytes at %p, unaligned", bytes, address);
        return;
    }
    Buffer &buffer = checked(address, bytes, "reads");
    buffer.traffic.loaded += static_cast<int64_t>(bytes);
    ++buffer.traffic.loads;
    buffer.traffic.wide_loads += wide;
    if (buffer.use & GN_COUNTERS) fail("reads %s by a plain load", buffer.name.c_str());
    if (buffer.written.empty()) return;
    const uintptr_t at = reinterpret_cast<uintptr_t>(address);
    const uint8_t *written = &buffer.written[at - buffer.begin];
    if (!previous_ended() && first(written, bytes, launch_ - 1) < bytes)
        fail("reads %s, which the launch before may not have written yet", place(buffer, at).c_str());
    if (const size_t i = first(written, bytes, kNever); i < bytes)
        fail("reads %s, which nobody has written", place(buffer, at + i).c_str());
    const size_t fresh = first(written, bytes, launch_);
    if (fresh < bytes && (buffer.use & GN_OUTPUT))
        fail("reads %s, which this launch has written", place(buffer, at + fresh).c_str());
    if (fresh < bytes && way != Way::coherent)
        fail("reads %s, which this launch has written, by a load that may be cached", place(buffer, at + fresh).c_str());
    if (buffer.use & GN_WORKSPACE)
        for (uintptr_t word = at / 4; word <= (at + bytes - 1) / 4; ++word)
            if (const std::string wrong = shared_.read(*self, word * 4); !wrong.empty())
                fail("race: reads %s, which %s", place(buffer, word * 4).c_str(), wrong.c_str());
}

bool Memory::check_write(const void *address, size_t bytes) {
    const bool wide = bytes == 16;
    total.stored += static_cast<int64_t>(bytes);
    ++total.stores;
    total.wide_stores += wide;
    if (buffers_.empty()) {
        if (reinterpret_cast<uintptr_t>(address) % bytes != 0) fail("writes %zu bytes at %p, unaligned", bytes, address);
        return true;
    }
    Buffer &buffer = checked(address, bytes, "writes");
    buffer.traffic.stored += static_cast<int64_t>(bytes);
    ++buffer.traffic.stores;
    buffer.traffic.wide_stores += wide;
    if (!(buffer.use & (GN_OUTPUT | GN_WORKSPACE | GN_COUNTERS))) fail("writes %s, an input", buffer.name.c_str());
    const uintptr_t at = reinterpret_cast<uintptr_t>(address);
    if (!previous_ended()) fail("writes %s before the launch before has ended", place(buffer, at).c_str());
    if (!buffer.written.empty()) {
        uint8_t *written = &buffer.written[at - buffer.begin];
        const size_t again = buffer.use & GN_OUTPUT ? first(written, bytes, launch_) : bytes;
        if (again < bytes) fail("writes %s a second time", place(buffer, at + again).c_str());
        memset(written, launch_, bytes);
    }
    if (buffer.use & (GN_WORKSPACE | GN_COUNTERS))
        for (uintptr_t word = at / 4; word <= (at + bytes - 1) / 4; ++word)
            if (const std::string wrong = shared_.write(*self, word * 4); !wrong.empty())
                fail("race: writes %s, which %s", place(buffer, word * 4).c_str(), wrong.c_str());
    return (buffer.use & GN_COUNTERS) != 0;
}

void Memory::count(const void *counter, bool wait) {
    if (!buffers_.empty() && !(checked(counter, 4, "counts").use & GN_COUNTERS)) fail("counts where no counters are");
    const uintptr_t at = reinterpret_cast<uintptr_t>(counter);
    const std::string wrong = wait ? shared_.arrived(*self, at) : shared_.arrive(*self, at);
    if (!wrong.empty()) fail("race: counts in a counter, which %s", wrong.c_str());
}

void Memory::slot(const void *slot, bool write) {
    if (buffers_.empty()) return;
    const Buffer &buffer = checked(slot, sizeof(Bits128), write ? "publishes" : "looks at");
    if (!(buffer.use & GN_COUNTERS)) fail("%s %s, where no counters are", write ? "publishes in" : "looks at", buffer.name.c_str());
    const uintptr_t at = reinterpret_cast<uintptr_t>(slot);
    // As in SharedByBlocks::arrive: an atomic access is ordered against others of its kind, not against plain stores.
    if (const std::string wrong = shared_.read(*self, at); !wrong.empty())
        fail("race: %s %s, which %s", write ? "publishes in" : "looks at", place(buffer, at).c_str(), wrong.c_str());
}

void Memory::check_unchanged(const void *address, size_t bytes) {
    const Buffer *buffer = find(reinterpret_cast<uintptr_t>(address));
    if (buffer == nullptr || buffer->written.empty()) return;
    const uintptr_t at = reinterpret_cast<uintptr_t>(address);
    if (first(&buffer->written[at - buffer->begin], bytes, launch_) < bytes)
        fail("copies %s, which this launch has written meanwhile", place(*buffer, at).c_str());
}

void Memory::reset_traffic() {
    total = gn_traffic{};
    for (Buffer &buffer : buffers_) buffer.traffic = gn_traffic{};
}

}  // namespace gn::emulator

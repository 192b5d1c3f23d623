// One line of text, written into a buffer of the caller's and cut where that ends.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <string>

namespace gn {

// "80 KB", "1.5 MB", "12 bytes": one digit after the point, none where it is 0.
inline std::string bytes_text(int64_t bytes) {
    if (bytes < 1024) return std::to_string(bytes) + " bytes";
    const char *const units[] = {" KB", " MB", " GB", " TB"};
    int64_t size = 1024;
    int unit = 0;
    while (unit < 3 && bytes >= size * 1024) size *= 1024, ++unit;
    const int64_t tenths = bytes / size * 10 + (bytes % size * 10 + size / 2) / size;
    const std::string fraction = tenths % 10 ? "." + std::to_string(tenths % 10) : "";
    return std::to_string(tenths / 10) + fraction + units[unit];
}

inline int tell(int status, const std::string &text, char *message, size_t size) {
    if (message != nullptr && size > 0) snprintf(message, size, "%s", text.c_str());
    return status;
}

}  // namespace gn

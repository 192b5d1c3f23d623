// One line of text of fixed size: what went wrong, made without allocating, so that it can be told from anywhere.
#pragma once
#include <stdarg.h>
#include <stdio.h>

#include "interface.h"

namespace gn {

struct Message {
    char text[512] = "";

    // Returns false, so that a check can end in `return message.say(...)`.
    __attribute__((format(printf, 2, 3))) bool say(const char *format, ...) noexcept {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(text, sizeof text, format, arguments);
        va_end(arguments);
        return false;
    }
};

// To the error recorder where TensorRT has given one, and to stderr; GN_DEPLOY_PLUGIN_QUIET=1 leaves stderr alone.
void report(nvinfer1::IErrorRecorder *recorder, nvinfer1::ErrorCode code, const Message &message) noexcept;

// What was reported last by this thread; empty at first.
const char *last_report() noexcept;

}  // namespace gn

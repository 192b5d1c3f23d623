// Where errors are told: no logger is used, since its binary interface differs between TensorRT 10 and 11.
#include "message.h"

#include <stdlib.h>
#include <string.h>

namespace gn {

static thread_local Message last;

void report(nvinfer1::IErrorRecorder *recorder, nvinfer1::ErrorCode code, const Message &message) noexcept {
    last = message;
    if (recorder != nullptr) recorder->reportError(code, message.text);
    const char *quiet = getenv("GN_DEPLOY_PLUGIN_QUIET");
    if (quiet == nullptr || strcmp(quiet, "1") != 0) fprintf(stderr, "gn_deploy plugin: %s\n", message.text);
}

const char *last_report() noexcept { return last.text; }

}  // namespace gn

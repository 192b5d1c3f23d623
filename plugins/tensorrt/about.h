// What the library is, in words that can be read from the file without loading it.
#pragma once

namespace gn {
extern const char *const kLibraryVersion;
}

// "gn_deploy plugin {JSON}".
extern "C" const char gn_plugin_about[];

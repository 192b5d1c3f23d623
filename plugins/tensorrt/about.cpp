// The build writes its own facts in here: version, sources, compiler.
#include "about.h"

#include "interface.h"

#ifndef GN_DEPLOY_VERSION
#define GN_DEPLOY_VERSION "unknown"
#endif
#ifndef GN_SOURCES
#define GN_SOURCES "unknown"
#endif
#ifndef GN_COMPILER
#define GN_COMPILER "unknown"
#endif

#define GN_CREATOR(name) "{\"name\": \"" name "\", \"version\": \"1\", \"namespace\": \"gn_deploy\"}"

namespace gn {
const char *const kLibraryVersion = "gn_deploy " GN_DEPLOY_VERSION ", sources " GN_SOURCES;
}

extern "C" __attribute__((used, visibility("default"))) const char gn_plugin_about[] =
    "gn_deploy plugin {\"version\": \"" GN_DEPLOY_VERSION "\", \"sources\": \"" GN_SOURCES      //
    "\", \"compiler\": \"" GN_COMPILER "\", \"headers\": \"" GN_HEADERS "\", \"creators\": ["  //
    GN_CREATOR("GroupNorm") ", " GN_CREATOR("SkipGroupNorm") ", "                              //
    GN_CREATOR("GroupNormQuantize") ", " GN_CREATOR("SkipGroupNormQuantize") "]}";

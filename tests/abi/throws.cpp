// A plugin whose entry breaks the rule that no exception crosses.
#include <dsengine/abi.h>

#include <stdexcept>

dse_status dse_plugin_entry(const dse_host*, const dse_plugin**) { throw std::runtime_error("no\nlicence"); }

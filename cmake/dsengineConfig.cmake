# find_package(dsengine): the target dsengine::sdk (headers alone) and the function dsengine_add_plugin.
include("${CMAKE_CURRENT_LIST_DIR}/dsengineTargets.cmake")
include("${CMAKE_CURRENT_LIST_DIR}/dsengine_add_plugin.cmake")

# The installed program, for tests of plugins.
find_program(DSENGINE_PROGRAM dsengine HINTS "${CMAKE_CURRENT_LIST_DIR}/../../../bin" "${CMAKE_CURRENT_LIST_DIR}/../../../../bin"
             NO_DEFAULT_PATH)

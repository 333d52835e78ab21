# dsengine_add_plugin(name source…): libdse_<name>.so from the SDK alone, exporting one symbol. It lands in
# DSENGINE_PLUGIN_OUTPUT where that is set, else in the current build folder.
function(dsengine_add_plugin name)
  add_library(dse_${name} MODULE ${ARGN})
  target_link_libraries(dse_${name} PRIVATE dsengine::sdk)
  set_target_properties(dse_${name} PROPERTIES CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
                                               CXX_EXTENSIONS OFF)
  if(DSENGINE_PLUGIN_OUTPUT)
    set_target_properties(dse_${name} PROPERTIES LIBRARY_OUTPUT_DIRECTORY "${DSENGINE_PLUGIN_OUTPUT}")
  endif()
endfunction()

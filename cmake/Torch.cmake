# LibTorch as imported targets, without find_package(Torch): the wheel's own package file wants a CUDA
# toolkit (and probes a GPU) even where only the CPU libraries are linked.
#
#   dsengine::torch    libtorch_cpu + libc10; starts in 0.35 s instead of the 0.62 s of libtorch_cuda
#
# DSENGINE_TORCH_DIR is the `torch` folder of the wheel; scripts/setup links .deps to the folder that holds it.
set(DSENGINE_TORCH_DIR "${CMAKE_SOURCE_DIR}/.deps/torch" CACHE PATH "torch folder of the LibTorch wheel")
if(NOT EXISTS "${DSENGINE_TORCH_DIR}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "LibTorch not found in ${DSENGINE_TORCH_DIR}: run scripts/setup first, "
                      "or give -DDSENGINE_TORCH_DIR=<torch folder of the wheel>")
endif()

# libtorch_cpu of the wheel needs libcudart and libcupti at load time: from the toolkit where there is one,
# else from the wheel's own CUDA packages, which its RPATH finds.
set(dse_cuda_hints /usr/local/cuda/lib64 /usr/local/cuda/extras/CUPTI/lib64)
set(dse_cuda_rpath "")
foreach(dir IN LISTS dse_cuda_hints)
  if(EXISTS "${dir}")
    list(APPEND dse_cuda_rpath "${dir}")
  endif()
endforeach()

# The wheel brings headers of other projects along (fmt among them) that would hide Debian's: a folder of
# links leaves them out.
set(dse_torch_include "${CMAKE_BINARY_DIR}/torch_include")
file(MAKE_DIRECTORY "${dse_torch_include}")
foreach(name ATen c10 caffe2 torch torch_standalone headeronly)
  if(EXISTS "${DSENGINE_TORCH_DIR}/include/${name}")
    file(CREATE_LINK "${DSENGINE_TORCH_DIR}/include/${name}" "${dse_torch_include}/${name}" SYMBOLIC)
  endif()
endforeach()

add_library(dsengine_torch INTERFACE)
add_library(dsengine::torch ALIAS dsengine_torch)
target_include_directories(dsengine_torch SYSTEM INTERFACE
  "${dse_torch_include}" "${dse_torch_include}/torch/csrc/api/include")
target_link_libraries(dsengine_torch INTERFACE
  "${DSENGINE_TORCH_DIR}/lib/libtorch_cpu.so" "${DSENGINE_TORCH_DIR}/lib/libc10.so")
target_link_options(dsengine_torch INTERFACE
  "LINKER:--disable-new-dtags" "LINKER:--allow-shlib-undefined" "LINKER:-rpath,${DSENGINE_TORCH_DIR}/lib")
foreach(dir IN LISTS dse_cuda_rpath)
  target_link_options(dsengine_torch INTERFACE "LINKER:-rpath,${dir}" "LINKER:-rpath-link,${dir}")
endforeach()

# MSA_CUDA=ON builds src/cuda and needs nvcc 12.8 or newer; OFF builds src/no_cuda. AUTO is OFF
# until the kernels have been verified on a Hopper GPU. Sets MSA_WITH_CUDA.
set(MSA_CUDA AUTO CACHE STRING "Build the cuda backend (NVIDIA Hopper): AUTO, ON or OFF")
set_property(CACHE MSA_CUDA PROPERTY STRINGS AUTO ON OFF)
set(MSA_WITH_CUDA OFF)
if(MSA_CUDA STREQUAL "AUTO" OR NOT MSA_CUDA)
  return()
endif()

# Machine code for sm_90a alone: wgmma and setmaxnreg exist nowhere else.
set(CMAKE_CUDA_ARCHITECTURES 90a-real)
if(NOT CMAKE_CUDA_HOST_COMPILER)
  set(CMAKE_CUDA_HOST_COMPILER ${CMAKE_CXX_COMPILER})
endif()
enable_language(CUDA)
if(CMAKE_VERSION VERSION_LESS 3.26)  # it does not know how to ask nvcc for C++20
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
find_package(CUDAToolkit REQUIRED)
set(MSA_WITH_CUDA ON)

# For every target with kernels of ours: one that spills or uses local memory does not build.
add_library(msa_cuda_flags INTERFACE)
target_compile_options(msa_cuda_flags INTERFACE
  "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-Xcompiler -Wall,-Wextra>"
  "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-Xptxas --warn-on-spills,--warn-on-local-memory-usage,-Werror>")

# `cmake --install`: both libraries, the headers, and what find_package(msa) and pkg-config read.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(msa_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/msa)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/msa DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS msa EXPORT msaStaticTargets)
install(EXPORT msaStaticTargets NAMESPACE msa:: DESTINATION ${msa_package_dir})
if(MSA_BUILD_SHARED)
  install(TARGETS msa_shared EXPORT msaSharedTargets)
  install(EXPORT msaSharedTargets NAMESPACE msa:: DESTINATION ${msa_package_dir})
endif()
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/msaConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/msaConfig.cmake
                              INSTALL_DESTINATION ${msa_package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/msaConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/msaConfig.cmake ${PROJECT_BINARY_DIR}/msaConfigVersion.cmake
        DESTINATION ${msa_package_dir})

# msa.pc is the shared library, for C; msa-static.pc the static one, for C++ and C. Both find their
# prefix from where they lie, so that an installation can be moved.
set(msa_pkgconfig_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
cmake_path(ABSOLUTE_PATH msa_pkgconfig_dir BASE_DIRECTORY ${CMAKE_INSTALL_PREFIX})
cmake_path(RELATIVE_PATH CMAKE_INSTALL_PREFIX BASE_DIRECTORY ${msa_pkgconfig_dir}
           OUTPUT_VARIABLE msa_prefix_from_pc)
set(msa_static_libs ${OpenMP_CXX_FLAGS})
if(MSA_WITH_CUDA)
  string(APPEND msa_static_libs " -L${CUDAToolkit_LIBRARY_DIR} -lcudart_static -ldl -lrt -lpthread")
endif()
set(msa_packages msa-static)
if(MSA_BUILD_SHARED)
  list(APPEND msa_packages msa)
endif()
foreach(package IN LISTS msa_packages)
  configure_file(${CMAKE_CURRENT_LIST_DIR}/${package}.pc.in ${PROJECT_BINARY_DIR}/${package}.pc
                 @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${package}.pc
          DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

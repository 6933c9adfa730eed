# `cmake --install`: the library, its headers and what find_package(msa) reads.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(msa_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/msa)
install(TARGETS msa EXPORT msaTargets)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/msa DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT msaTargets NAMESPACE msa:: DESTINATION ${msa_package_dir})
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/msaConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/msaConfig.cmake
                              INSTALL_DESTINATION ${msa_package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/msaConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/msaConfig.cmake ${PROJECT_BINARY_DIR}/msaConfigVersion.cmake
        DESTINATION ${msa_package_dir})
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

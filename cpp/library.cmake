# The library for C and C++: libsimdformer, its header, and what find_package(simdformer) reads.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

# Its number is SIMDFORMER_ABI_VERSION of the header.
file(STRINGS c_api/simdformer.h abi_line REGEX "^#define SIMDFORMER_ABI_VERSION ")
string(REGEX MATCH "[0-9]+$" abi_version "${abi_line}")

add_library(simdformer SHARED c_api/simdformer.cpp model_file/part_reader.cpp model_file/reader.cpp ${simdformer_objects})
target_link_libraries(simdformer PRIVATE $<BUILD_INTERFACE:simdformer_options> ${thread_libraries})
target_include_directories(simdformer INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_compile_definitions(simdformer PRIVATE SIMDFORMER_BUILDING
                           SIMDFORMER_VERSION="${SIMDFORMER_VERSION}")
set_target_properties(simdformer PROPERTIES VERSION ${SIMDFORMER_VERSION} SOVERSION ${abi_version})
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
  # Its threads run until the process ends, so dlclose may not take their code away.
  target_link_options(simdformer PRIVATE -Wl,-z,nodelete -Wl,--no-undefined)
endif()

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/simdformer)
file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/simdformerConfig.cmake
     "include(\${CMAKE_CURRENT_LIST_DIR}/simdformerTargets.cmake)\n")
write_basic_package_version_file(simdformerConfigVersion.cmake
  VERSION ${SIMDFORMER_VERSION} COMPATIBILITY SameMajorVersion)
install(TARGETS simdformer EXPORT simdformerTargets COMPONENT library)
install(FILES c_api/simdformer.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT library)
install(EXPORT simdformerTargets NAMESPACE simdformer:: DESTINATION ${package_folder} COMPONENT library)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/simdformerConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/simdformerConfigVersion.cmake
        DESTINATION ${package_folder} COMPONENT library)

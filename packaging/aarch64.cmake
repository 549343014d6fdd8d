# Toolchain of the wheel for aarch64: Debian's g++-aarch64-linux-gnu.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
# ExecuTorch's library asks for symbols of libraries that only the device has.
set(CMAKE_MODULE_LINKER_FLAGS_INIT -Wl,--allow-shlib-undefined)

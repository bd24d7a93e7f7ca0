// Not emulated: a kernel that needs this header is refused when it is compiled.
#error "mma.h is not emulated"

// Not emulated: a kernel that needs this header is refused when it is compiled.
#error "cooperative_groups.h is not emulated"

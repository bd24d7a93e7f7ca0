// Not emulated: a kernel that needs this header is refused when it is compiled.
#error "cooperative_groups/memcpy_async.h is not emulated"

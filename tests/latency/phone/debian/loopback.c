/* Preloaded into adbd, which on Linux listens on every interface and trusts whoever connects: here
   it listens on 127.0.0.1 only, and on nothing that is not a socket of the internet or a file. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

int bind(int handle, const struct sockaddr *asked, socklen_t length) {
  int (*original)(int, const struct sockaddr *, socklen_t);
  *(void **)&original = dlsym(RTLD_NEXT, "bind");
  struct sockaddr_storage address;
  if (length > sizeof address) {
    errno = EINVAL;
    return -1;
  }
  memcpy(&address, asked, length);
  if (asked->sa_family == AF_INET) {
    ((struct sockaddr_in *)&address)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  } else if (asked->sa_family == AF_INET6) {
    unsigned char *bytes = ((struct sockaddr_in6 *)&address)->sin6_addr.s6_addr;
    memset(bytes, 0, 10);
    memcpy(bytes + 10, "\xff\xff\x7f\x00\x00\x01", 6); /* 127.0.0.1 as IPv6 writes it */
  } else if (asked->sa_family != AF_UNIX) {
    errno = EAFNOSUPPORT;
    return -1;
  }
  return original(handle, (struct sockaddr *)&address, length);
}

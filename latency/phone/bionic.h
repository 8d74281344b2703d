/* What runner.c needs of Android's C library, for a compiler without the NDK's headers (arm64). */

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

typedef long ssize_t, pthread_t;
typedef struct FILE FILE;
struct timespec {
  long tv_sec, tv_nsec;
};
enum { CLOCK_MONOTONIC = 1, RTLD_NOW = 2, RTLD_GLOBAL = 256, SIGALRM = 14 };

_Noreturn void _exit(int);
FILE *fopen(const char *, const char *);
char *fgets(char *, int, FILE *);
char *strchr(const char *, int);
char *strstr(const char *, const char *);
const char *dlerror(void);
int clock_gettime(int, struct timespec *);
int fclose(FILE *);
int pthread_create(pthread_t *, const void *, void *(*)(void *), void *);
int setenv(const char *, const char *, int);
int strcmp(const char *, const char *);
int strncmp(const char *, const char *, size_t);
int unlink(const char *);
int vsnprintf(char *, size_t, const char *, va_list);
long strtol(const char *, char **, int);
ssize_t read(int, void *, size_t);
ssize_t write(int, const void *, size_t);
unsigned alarm(unsigned);
void (*signal(int, void (*)(int)))(int);
void *dlopen(const char *, int);
void *dlsym(void *, const char *);
void *malloc(size_t);
void *memcpy(void *, const void *, size_t);
void *realloc(void *, size_t);

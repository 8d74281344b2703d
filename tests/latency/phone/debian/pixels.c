/* Runs one ONNX model once: pixels LIBRARY MODEL HEIGHT WIDTH, (1, 3, HEIGHT, WIDTH) float from
   standard input, what the model gives to standard output. Everything by ONNX Runtime's C API, a table
   of functions whose order never changes. */

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct Status Status;
typedef struct {
  const void *const *(*get_api)(uint32_t version);
} ApiBase;
enum { API = 17, FLOAT = 1, CPU_ALLOCATOR = 1, DEFAULT_MEMORY = 0, FATAL_ONLY = 4 };
static const void *const *api;
#define CALL(place, ...) (((Status * (*)(__VA_ARGS__)) api[place]))

static void check(const char *what, Status *status) {
  if (!status) return;
  fprintf(stderr, "%s: %s\n", what, ((const char *(*)(const Status *))api[2])(status));
  exit(2);
}

int main(int count, char **words) {
  if (count != 5) return 3;
  setenv("ORT_DISABLE_TELEMETRY", "1", 1);
  void *library = dlopen(words[1], RTLD_NOW | RTLD_GLOBAL);
  const ApiBase *(*get_base)(void);
  if (!library || !(*(void **)&get_base = dlsym(library, "OrtGetApiBase"))) {
    fprintf(stderr, "%s\n", dlerror());
    return 3;
  }
  api = get_base()->get_api(API);
  if (!api) return 3;
  int64_t shape[4] = {1, 3, atol(words[3]), atol(words[4])};
  size_t elements = (size_t)(3 * shape[2] * shape[3]), made;
  float *image = malloc(elements * sizeof *image);
  if (!image || fread(image, sizeof *image, elements, stdin) != elements) return 3;

  void *env, *options, *session, *memory, *input, *output = NULL, *info, *data;
  const char *name_in = "lr", *name_out = "sr";
  check("start", CALL(3, int, const char *, void **)(FATAL_ONLY, "pixels", &env));
  check("options", CALL(10, void **)(&options));
  check("threads", CALL(24, void *, int)(options, 1));
  check("model", CALL(7, void *, const char *, const void *, void **)(env, words[2], options, &session));
  check("memory", CALL(69, int, int, void **)(CPU_ALLOCATOR, DEFAULT_MEMORY, &memory));
  check("input", CALL(49, const void *, void *, size_t, const int64_t *, size_t, int, void **)(
                     memory, image, elements * sizeof *image, shape, 4, FLOAT, &input));
  check("run", CALL(9, void *, const void *, const char *const *, const void *const *, size_t,
                    const char *const *, size_t, void **)(
                   session, NULL, &name_in, (const void *const *)&input, 1, &name_out, 1, &output));
  check("output", CALL(65, const void *, void **)(output, &info));
  check("output", CALL(64, const void *, size_t *)(info, &made));
  check("output", CALL(51, void *, void **)(output, &data));
  if (fwrite(data, sizeof(float), made, stdout) != made || fflush(stdout)) return 3;
  _Exit(0);
}

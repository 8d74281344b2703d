/* ONNX Runtime's library under the Java classes of tests/android/runtime, through the same table of
   its C API that the phone-side program uses: what Maven's JAR would bring. */

#define main main_of_the_program
#include "runner.c"
#undef main
#include <jni.h>

#define create_session_of_bytes CALL(8, void *, const void *, size_t, const void *, void **)
#define release_options ((void (*)(void *))api[100])
#define release_status ((void (*)(Status *))api[93])

static void *env;
static const ApiBase *base;

static int threw(JNIEnv *java, Status *status) {
  if (!status) return 0;
  jclass kind = (*java)->FindClass(java, "ai/onnxruntime/OrtException");
  char text[1024];
  snprintf(text, sizeof text, "Error code - ORT : %s", error_message(status));
  release_status(status);
  (*java)->ThrowNew(java, kind, text);
  return 1;
}

JNIEXPORT jstring JNICALL Java_ai_onnxruntime_Native_open(JNIEnv *java, jclass own, jstring path) {
  (void)own;
  const char *name = (*java)->GetStringUTFChars(java, path, NULL);
  void *library = dlopen(name, RTLD_NOW | RTLD_GLOBAL);
  (*java)->ReleaseStringUTFChars(java, path, name);
  const ApiBase *(*get_base)(void);
  *(void **)&get_base = library ? dlsym(library, "OrtGetApiBase") : NULL;
  if (!get_base) return NULL;
  base = get_base();
  api = base->get_api(API);
  if (threw(java, create_env(FATAL_ONLY, "test", &env))) return NULL;
  return (*java)->NewStringUTF(java, base->get_version());
}

JNIEXPORT jlong JNICALL Java_ai_onnxruntime_Native_load(JNIEnv *java, jclass own, jbyteArray model,
                                                        jint threads, jstring provider,
                                                        jstring profile) {
  (void)own;
  void *options, *session = NULL;
  jsize size = (*java)->GetArrayLength(java, model);
  jbyte *bytes = (*java)->GetByteArrayElements(java, model, NULL);
  const char *name = (*java)->GetStringUTFChars(java, provider, NULL);
  const char *prefix = profile ? (*java)->GetStringUTFChars(java, profile, NULL) : NULL;
  int failed = threw(java, create_options(&options));
  failed = failed || threw(java, set_optimization(options, ALL_OPTIMIZATIONS));
  failed = failed || threw(java, set_intra_threads(options, threads));
  if (!failed && prefix) failed = threw(java, enable_profiling(options, prefix));
  if (!failed && *name) failed = threw(java, append_provider(options, name, NULL, NULL, 0));
  failed = failed || threw(java, create_session_of_bytes(env, bytes, (size_t)size, options, &session));
  release_options(options);
  if (prefix) (*java)->ReleaseStringUTFChars(java, profile, prefix);
  (*java)->ReleaseStringUTFChars(java, provider, name);
  (*java)->ReleaseByteArrayElements(java, model, bytes, JNI_ABORT);
  return (jlong)session;
}

JNIEXPORT jobjectArray JNICALL Java_ai_onnxruntime_Native_names(JNIEnv *java, jclass own,
                                                                jlong session) {
  (void)own;
  size_t count;
  void *allocator;
  if (threw(java, count_inputs((void *)session, &count))) return NULL;
  if (threw(java, default_allocator(&allocator))) return NULL;
  jclass text = (*java)->FindClass(java, "java/lang/String");
  jobjectArray found = (*java)->NewObjectArray(java, (jsize)count, text, NULL);
  for (size_t k = 0; k < count; k++) {
    char *name;
    if (threw(java, input_name((void *)session, k, allocator, &name))) return NULL;
    (*java)->SetObjectArrayElement(java, found, (jsize)k, (*java)->NewStringUTF(java, name));
  }
  return found;
}

/* Returns the output's bytes; told gets its element type, its rank and its dimensions. */
JNIEXPORT jbyteArray JNICALL Java_ai_onnxruntime_Native_run(JNIEnv *java, jclass own, jlong session,
                                                            jstring name, jobject data,
                                                            jlongArray shape, jint type,
                                                            jlongArray told) {
  (void)own;
  void *memory, *allocator, *input, *output = NULL, *info, *result;
  char *output_names;
  int64_t dims[MOST_DIMS], found[2 + MOST_DIMS];
  size_t rank = (size_t)(*java)->GetArrayLength(java, shape), elements;
  int kind;
  (*java)->GetLongArrayRegion(java, shape, 0, (jsize)rank, (jlong *)dims);
  const char *input_names = (*java)->GetStringUTFChars(java, name, NULL);
  int failed =
      threw(java, cpu_memory(CPU_ALLOCATOR, DEFAULT_MEMORY, &memory)) ||
      threw(java, default_allocator(&allocator)) ||
      threw(java, output_name((void *)session, 0, allocator, &output_names)) ||
      threw(java, create_tensor(memory, (*java)->GetDirectBufferAddress(java, data),
                                (size_t)(*java)->GetDirectBufferCapacity(java, data), dims, rank,
                                type, &input));
  if (!failed) {
    failed = threw(java, run_session((void *)session, NULL, &input_names,
                                     (const void *const *)&input, 1,
                                     (const char *const *)&output_names, 1, &output));
    release_value(input);
  }
  (*java)->ReleaseStringUTFChars(java, name, input_names);
  if (failed || threw(java, type_and_shape(output, &info)) ||
      threw(java, element_type(info, &kind)) || threw(java, count_dims(info, &rank)) ||
      threw(java, count_elements(info, &elements)) || threw(java, get_dims(info, dims, rank)) ||
      threw(java, tensor_data(output, &result)))
    return NULL;
  found[0] = kind, found[1] = (int64_t)rank;
  for (size_t k = 0; k < rank; k++) found[2 + k] = dims[k];
  (*java)->SetLongArrayRegion(java, told, 0, (jsize)(2 + rank), (jlong *)found);
  size_t bytes = elements * (kind == FLOAT ? 4 : kind == FLOAT16 ? 2 : 1);
  jbyteArray copy = (*java)->NewByteArray(java, (jsize)bytes);
  if (copy) (*java)->SetByteArrayRegion(java, copy, 0, (jsize)bytes, result);
  release_value(output);
  return copy;
}

JNIEXPORT jstring JNICALL Java_ai_onnxruntime_Native_endProfiling(JNIEnv *java, jclass own,
                                                                  jlong session) {
  (void)own;
  void *allocator;
  char *path;
  if (threw(java, default_allocator(&allocator))) return NULL;
  if (threw(java, end_profiling((void *)session, allocator, &path))) return NULL;
  return (*java)->NewStringUTF(java, path);
}

JNIEXPORT void JNICALL Java_ai_onnxruntime_Native_close(JNIEnv *java, jclass own, jlong session) {
  (void)java, (void)own;
  release_session((void *)session);
}

/**
 * What the app calls of ONNX Runtime's Java API, to compile against where Maven is not reachable.
 *
 * <p>Nothing of it gets into an APK. tests/android/test_stubs.py compares it with the API.
 */
package ai.onnxruntime;

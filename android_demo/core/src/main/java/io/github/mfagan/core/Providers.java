package io.github.mfagan.core;

import java.util.Arrays;
import java.util.Collections;
import java.util.List;

/** ONNX Runtime's execution providers that a phone may have. */
public final class Providers {
    /** In the order in which they are offered; `mfagan-latency profile` has the same names. */
    public static final List<String> NAMES =
            Collections.unmodifiableList(Arrays.asList("cpu", "xnnpack", "nnapi", "qnn"));
    /** API level of the last Android in which NNAPI is not deprecated. */
    public static final int LAST_NNAPI = 34;

    private Providers() {}

    /** Returns what a user reads beside a provider's name. */
    public static String describe(String name, int sdk) {
        if (name.equals("cpu")) {
            return "CPU: runs everything";
        }
        if (name.equals("xnnpack")) {
            return "XNNPACK: the CPU, for float models";
        }
        if (name.equals("nnapi")) {
            String old = sdk > LAST_NNAPI ? "; deprecated on this Android" : "";
            return "NNAPI: the phone's accelerator, often slower than the CPU" + old;
        }
        return "QNN: Qualcomm's NPU, for int8 models of a fixed size";
    }
}

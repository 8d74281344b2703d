package io.github.mfagan.app;

import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtEpDevice;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtLoggingLevel;
import ai.onnxruntime.OrtSession;
import ai.onnxruntime.providers.NNAPIFlags;
import io.github.mfagan.core.Engine;
import io.github.mfagan.core.Network;
import io.github.mfagan.core.NetworkException;
import java.io.File;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Loads networks with ONNX Runtime; knows nothing of Android, so that it is tested on a desktop.
 *
 * <p>Whoever makes it has set ORT_DISABLE_TELEMETRY before.
 */
public final class OrtEngine implements Engine {
    private static final String QNN_PLUGIN = "QNNExecutionProvider";
    private static final String BACKEND = "backend_path";

    private final File libraries;
    private boolean registered;

    /** Makes it; QNN's plugin is looked for in the folder of the app's native libraries. */
    public OrtEngine(File libraries) {
        this.libraries = libraries;
    }

    @Override
    public String version() {
        return environment().getVersion();
    }

    @Override
    public Network load(byte[] model, Settings settings) throws NetworkException {
        try {
            OrtSession.SessionOptions options = options(settings);
            return new OrtNetwork(environment(), model, options);
        } catch (OrtException error) {
            throw failed("the model cannot be loaded with " + settings.provider, error);
        } catch (LinkageError error) {
            throw new NetworkException("this build of the app carries no ONNX Runtime", error);
        }
    }

    /** Returns an error whose sentence ends with ONNX Runtime's own last words. */
    static NetworkException failed(String what, OrtException error) {
        String said = String.valueOf(error.getMessage());
        int colon = said.lastIndexOf(" : ");
        String why = said.substring(colon < 0 ? 0 : colon + 3).trim().replace('\n', ' ');
        return new NetworkException(what + ": " + why, error);
    }

    private static OrtEnvironment environment() {
        return OrtEnvironment.getEnvironment(OrtLoggingLevel.ORT_LOGGING_LEVEL_FATAL, "mfagan");
    }

    private OrtSession.SessionOptions options(Settings settings)
            throws OrtException, NetworkException {
        OrtSession.SessionOptions options = new OrtSession.SessionOptions();
        try {
            // XNNPACK has threads of its own; ONNX Runtime's would only spin beside them.
            boolean own = settings.provider.equals("xnnpack");
            options.setOptimizationLevel(OrtSession.SessionOptions.OptLevel.ALL_OPT);
            options.setInterOpNumThreads(1);
            options.setIntraOpNumThreads(own ? 1 : settings.threads);
            if (settings.profile != null) {
                options.enableProfiling(settings.profile);
            }
            if (own) {
                options.addConfigEntry("session.intra_op.allow_spinning", "0");
                options.addXnnpack(with(settings, "intra_op_num_threads", settings.threads + ""));
            } else if (settings.provider.equals("nnapi")) {
                options.addNnapi(flags(settings.options));
            } else if (settings.provider.equals("qnn")) {
                addQnn(options, with(settings, BACKEND, "libQnnHtp.so"));
            }
            return options;
        } catch (OrtException error) {
            options.close();
            throw error;
        } catch (NetworkException error) {
            options.close();
            throw error;
        }
    }

    /** QNN is a library of its own that is registered, or built in. */
    private synchronized void addQnn(OrtSession.SessionOptions options, Map<String, String> given)
            throws OrtException, NetworkException {
        File plugin = plugin();
        if (plugin == null) {
            options.addQnn(given);
            return;
        }
        if (!registered) {
            environment().registerExecutionProviderLibrary(QNN_PLUGIN, plugin.getPath());
            registered = true;
        }
        List<OrtEpDevice> found = new ArrayList<OrtEpDevice>();
        for (OrtEpDevice device : environment().getEpDevices()) {
            if (device.getName().equals(QNN_PLUGIN) && found.isEmpty()) {
                found.add(device);
            }
        }
        if (found.isEmpty()) {
            throw new NetworkException("QNN finds no device on this phone");
        }
        options.addExecutionProvider(found, given);
    }

    private File plugin() {
        File[] files = libraries == null ? null : libraries.listFiles();
        for (File file : files == null ? new File[0] : files) {
            if (file.getName().matches("libonnxruntime.*qnn.*\\.so")) {
                return file;
            }
        }
        return null;
    }

    private static Map<String, String> with(Settings settings, String key, String value) {
        Map<String, String> options = new LinkedHashMap<String, String>();
        options.put(key, value);
        options.putAll(settings.options);
        return options;
    }

    private static EnumSet<NNAPIFlags> flags(Map<String, String> options)
            throws NetworkException {
        EnumSet<NNAPIFlags> found = EnumSet.noneOf(NNAPIFlags.class);
        String text = options.containsKey("flags") ? options.get("flags") : "0";
        int known = options.containsKey("flags") ? 1 : 0;
        if (options.size() > known || !text.matches("[0-9]{1,4}")) {
            throw new NetworkException("NNAPI's only option is flags=N");
        }
        for (NNAPIFlags flag : NNAPIFlags.values()) {
            if ((Integer.parseInt(text) & flag.getValue()) != 0) {
                found.add(flag);
            }
        }
        return found;
    }
}

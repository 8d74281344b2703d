package io.github.mfagan.app;

import android.content.Context;
import android.content.res.AssetManager;
import android.net.Uri;
import io.github.mfagan.core.CancelledException;
import io.github.mfagan.core.Files;
import io.github.mfagan.core.ModelCard;
import io.github.mfagan.core.RefusedException;
import io.github.mfagan.core.Watcher;
import java.io.BufferedInputStream;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.List;

/** The models that come with the app, and those that the user opens. */
final class Models {
    private static final String FOLDER = "models";
    private static final String SUFFIX = ".onnx";
    private static final long MOST_BYTES = 256L << 20;

    private Models() {}

    /** Returns the models among the app's assets; reading their cards takes milliseconds. */
    static List<Model> bundled(Context context) throws IOException, RefusedException {
        List<Model> found = new ArrayList<Model>();
        AssetManager assets = context.getAssets();
        for (String name : assets.list(FOLDER)) {
            if (!name.endsWith(SUFFIX)) {
                continue;
            }
            String place = FOLDER + "/" + name;
            InputStream file = new BufferedInputStream(assets.open(place));
            try {
                String title = name.substring(0, name.length() - SUFFIX.length());
                found.add(new Model(title, ModelCard.read(file), place, null));
            } finally {
                file.close();
            }
        }
        return found;
    }

    /**
     * Opens a file that the user chose; not on the main thread.
     *
     * @throws RefusedException it is no model of mfagan-export, or none for a phone
     */
    static Model open(Context context, Uri uri, String title, Watcher watcher)
            throws IOException, RefusedException, CancelledException {
        InputStream file = context.getContentResolver().openInputStream(uri);
        if (file == null) {
            throw new IOException("the file cannot be opened");
        }
        byte[] bytes = Files.readAll(file, MOST_BYTES, watcher);
        ModelCard card = ModelCard.read(new ByteArrayInputStream(bytes));
        card.checkForPhone();
        return new Model(title, card, null, bytes);
    }

    /** Returns the bytes of a model's file. */
    static byte[] bytes(Context context, Model model, Watcher watcher)
            throws IOException, RefusedException, CancelledException {
        return model.asset == null
                ? model.bytes
                : Files.readAll(context.getAssets().open(model.asset), MOST_BYTES, watcher);
    }
}

package io.github.mfagan.app;

import android.content.ContentResolver;
import android.content.ContentValues;
import android.content.Context;
import android.net.Uri;
import android.os.Build;
import android.provider.DocumentsContract;
import android.provider.MediaStore;
import io.github.mfagan.core.CancelledException;
import io.github.mfagan.core.Files;
import io.github.mfagan.core.RefusedException;
import io.github.mfagan.core.Watcher;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;

/** Puts the result among the phone's pictures, or where the user says; needs no permission. */
final class Gallery {
    private static final int ANDROID_10 = 29;
    /* Columns that are newer than the android.jar that `make apk` compiles with. */
    private static final String RELATIVE_PATH = "relative_path";
    private static final String IS_PENDING = "is_pending";

    private Gallery() {}

    /** Returns whether there is a place for pictures that needs no asking. */
    static boolean hasPlace() {
        return Build.VERSION.SDK_INT >= ANDROID_10;
    }

    /** Copies the result; a place of null is Pictures/mfagan, where {@link #hasPlace}. */
    static void save(Context context, File result, Uri place, Watcher watcher)
            throws IOException, RefusedException, CancelledException {
        ContentResolver resolver = context.getContentResolver();
        if (place != null) {
            copyOrDelete(resolver, result, place, watcher);
            return;
        }
        ContentValues values = new ContentValues();
        String name = "mfagan-" + System.currentTimeMillis() / 1000 + ".png";
        values.put(MediaStore.MediaColumns.DISPLAY_NAME, name);
        values.put(MediaStore.MediaColumns.MIME_TYPE, ResultProvider.TYPE);
        values.put(RELATIVE_PATH, "Pictures/mfagan");
        values.put(IS_PENDING, 1);
        Uri made = resolver.insert(MediaStore.Images.Media.EXTERNAL_CONTENT_URI, values);
        if (made == null) {
            throw new IOException("the phone takes no picture");
        }
        boolean whole = false;
        try {
            copy(resolver, result, made, watcher);
            values.clear();
            values.put(IS_PENDING, 0);
            resolver.update(made, values, null, null);
            whole = true;
        } finally {
            if (!whole) { // half a picture is none
                resolver.delete(made, null, null);
            }
        }
    }

    private static void copyOrDelete(
            ContentResolver resolver, File result, Uri place, Watcher watcher)
            throws IOException, RefusedException, CancelledException {
        boolean whole = false;
        try {
            copy(resolver, result, place, watcher);
            whole = true;
        } finally {
            if (!whole) {
                delete(resolver, place);
            }
        }
    }

    private static void delete(ContentResolver resolver, Uri place) {
        try {
            DocumentsContract.deleteDocument(resolver, place);
        } catch (Exception error) { // what is declared differs between Android's versions
            Report.warn("half a picture is left", error);
        }
    }

    private static void copy(ContentResolver resolver, File result, Uri place, Watcher watcher)
            throws IOException, RefusedException, CancelledException {
        InputStream from = new FileInputStream(result);
        try {
            OutputStream to = resolver.openOutputStream(place);
            if (to == null) {
                throw new IOException("the place cannot be written to");
            }
            try {
                Files.copy(from, to, Long.MAX_VALUE, watcher);
            } finally {
                to.close();
            }
        } finally {
            from.close();
        }
    }
}

package io.github.mfagan.app;

import android.content.ContentProvider;
import android.content.ContentValues;
import android.database.Cursor;
import android.database.MatrixCursor;
import android.net.Uri;
import android.os.ParcelFileDescriptor;
import android.provider.OpenableColumns;
import java.io.FileNotFoundException;

/** Lends the result, and nothing else, to the app that the user shares it with. */
public final class ResultProvider extends ContentProvider {
    static final Uri RESULT = Uri.parse("content://io.github.mfagan.app.result/result.png");
    static final String TYPE = "image/png";

    @Override
    public boolean onCreate() {
        return true;
    }

    @Override
    public String getType(Uri uri) {
        return RESULT.equals(uri) ? TYPE : null;
    }

    @Override
    public ParcelFileDescriptor openFile(Uri uri, String mode) throws FileNotFoundException {
        if (!RESULT.equals(uri) || !"r".equals(mode)) {
            throw new FileNotFoundException(String.valueOf(uri));
        }
        return ParcelFileDescriptor.open(
                App.work(getContext()).result(), ParcelFileDescriptor.MODE_READ_ONLY);
    }

    @Override
    public Cursor query(
            Uri uri, String[] columns, String selection, String[] arguments, String order) {
        String[] wanted =
                columns == null
                        ? new String[] {OpenableColumns.DISPLAY_NAME, OpenableColumns.SIZE}
                        : columns;
        MatrixCursor found = new MatrixCursor(wanted, 1);
        if (RESULT.equals(uri)) {
            Object[] row = new Object[wanted.length];
            for (int k = 0; k < wanted.length; k++) {
                if (OpenableColumns.DISPLAY_NAME.equals(wanted[k])) {
                    row[k] = "result.png";
                } else if (OpenableColumns.SIZE.equals(wanted[k])) {
                    row[k] = App.work(getContext()).result().length();
                }
            }
            found.addRow(row);
        }
        return found;
    }

    @Override
    public Uri insert(Uri uri, ContentValues values) {
        throw new UnsupportedOperationException();
    }

    @Override
    public int delete(Uri uri, String selection, String[] arguments) {
        throw new UnsupportedOperationException();
    }

    @Override
    public int update(Uri uri, ContentValues values, String selection, String[] arguments) {
        throw new UnsupportedOperationException();
    }
}

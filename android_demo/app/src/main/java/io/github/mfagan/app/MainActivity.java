package io.github.mfagan.app;

import android.app.Activity;
import android.content.Intent;
import android.net.Uri;
import android.os.Build;
import android.os.Bundle;
import android.os.Handler;
import android.os.Looper;
import android.view.View;
import android.widget.AdapterView;
import android.widget.ArrayAdapter;
import android.widget.Button;
import android.widget.Spinner;
import android.widget.TextView;
import io.github.mfagan.core.Progress;
import io.github.mfagan.core.Providers;
import io.github.mfagan.core.RefusedException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;

/** The screen: pick, choose, enlarge, compare, save, share. What is done lives in {@link Work}. */
public final class MainActivity extends Activity implements Work.Listener {
    private static final int PICK = 1;
    private static final int OPEN_MODEL = 2;
    private static final int SAVE = 3;
    private static final long TICK_MS = 200;
    private static final int[] BUTTONS = {
        R.id.pick, R.id.run, R.id.save, R.id.share, R.id.open_model};

    private final Handler main = new Handler(Looper.getMainLooper());
    private final List<Model> models = new ArrayList<Model>();
    private Work work;
    private CompareView compare;
    private TextView status;
    private Spinner modelList;
    private Spinner providerList;
    private int shown = -1;
    private int opened;

    private final Runnable tick =
            new Runnable() {
                @Override
                public void run() {
                    changed();
                }
            };

    @Override
    protected void onCreate(Bundle state) {
        super.onCreate(state);
        setContentView(R.layout.main);
        work = App.work(this);
        compare = (CompareView) findViewById(R.id.compare);
        status = (TextView) findViewById(R.id.status);
        modelList = (Spinner) findViewById(R.id.model);
        providerList = (Spinner) findViewById(R.id.provider);
        fillModels();
        fillProviders();
        for (int id : BUTTONS) {
            findViewById(id).setOnClickListener(clicks);
        }
        if (state == null) {
            take(getIntent());
        } else {
            compare.restore(state);
            modelList.setSelection(Math.max(0, Math.min(state.getInt("model"), models.size() - 1)));
            providerList.setSelection(state.getInt("provider"));
        }
    }

    @Override
    protected void onSaveInstanceState(Bundle state) {
        super.onSaveInstanceState(state);
        compare.save(state);
        state.putInt("model", modelList.getSelectedItemPosition());
        state.putInt("provider", providerList.getSelectedItemPosition());
    }

    @Override
    protected void onStart() {
        super.onStart();
        work.attach(this);
        changed();
    }

    @Override
    protected void onStop() {
        super.onStop();
        work.attach(null);
        main.removeCallbacks(tick);
    }

    @Override
    protected void onNewIntent(Intent intent) {
        super.onNewIntent(intent);
        take(intent);
    }

    /** Takes a picture that another app shares, once: Recents give the same intent again. */
    private void take(Intent intent) {
        if (intent == null || !Intent.ACTION_SEND.equals(intent.getAction())
                || (intent.getFlags() & Intent.FLAG_ACTIVITY_LAUNCHED_FROM_HISTORY) != 0) {
            return;
        }
        setIntent(new Intent());
        Object stream = intent.getParcelableExtra(Intent.EXTRA_STREAM);
        if (stream instanceof Uri && "content".equals(((Uri) stream).getScheme())) {
            work.open((Uri) stream); // another scheme could name one of this app's own files
        } else {
            work.say("refused: what was shared is no picture");
        }
    }

    private final View.OnClickListener clicks =
            new View.OnClickListener() {
                @Override
                public void onClick(View button) {
                    clicked(button.getId());
                }
            };

    private void clicked(int id) {
        if (id == R.id.pick) {
            ask(Intent.ACTION_OPEN_DOCUMENT, "image/*", PICK);
        } else if (id == R.id.open_model) {
            ask(Intent.ACTION_OPEN_DOCUMENT, "*/*", OPEN_MODEL);
        } else if (id == R.id.run && work.progress() != null) {
            work.cancel();
            changed();
        } else if (id == R.id.run && models.isEmpty()) {
            work.say("refused: there is no model; open an .onnx file of mfagan-export");
        } else if (id == R.id.run) {
            Model model = models.get(modelList.getSelectedItemPosition());
            work.enlarge(model, Providers.NAMES.get(providerList.getSelectedItemPosition()));
        } else if (id == R.id.save && Gallery.hasPlace()) {
            work.save(null);
        } else if (id == R.id.save) {
            ask(Intent.ACTION_CREATE_DOCUMENT, ResultProvider.TYPE, SAVE);
        } else if (id == R.id.share) {
            share();
        }
    }

    private void ask(String action, String type, int request) {
        Intent intent = new Intent(action);
        intent.addCategory(Intent.CATEGORY_OPENABLE);
        intent.setType(type);
        if (request == SAVE) {
            intent.putExtra(Intent.EXTRA_TITLE, "mfagan.png");
        }
        startActivityForResult(intent, request);
    }

    private void share() {
        Intent intent = new Intent(Intent.ACTION_SEND);
        intent.setType(ResultProvider.TYPE);
        intent.putExtra(Intent.EXTRA_STREAM, ResultProvider.RESULT);
        intent.addFlags(Intent.FLAG_GRANT_READ_URI_PERMISSION);
        intent.setClipData(
                android.content.ClipData.newRawUri("result", ResultProvider.RESULT));
        startActivity(Intent.createChooser(intent, getString(R.string.share)));
    }

    @Override
    protected void onActivityResult(int request, int outcome, Intent data) {
        if (outcome != RESULT_OK || data == null || data.getData() == null) {
            return;
        }
        Uri uri = data.getData();
        if (request == PICK) {
            work.open(uri);
        } else if (request == SAVE) {
            work.save(uri);
        } else if (request == OPEN_MODEL) {
            String path = String.valueOf(uri.getLastPathSegment());
            work.openModel(uri, path.substring(path.lastIndexOf('/') + 1));
        }
    }

    private void fillModels() {
        models.clear();
        try {
            models.addAll(Models.bundled(this));
        } catch (RefusedException error) {
            work.say("refused: a model of the app's own: " + error.getMessage());
        } catch (IOException error) {
            work.say("failed: " + error.getMessage());
        }
        int own = models.size();
        models.addAll(work.opened());
        opened = models.size() - own;
        List<Object> titles = new ArrayList<Object>(models);
        if (models.isEmpty()) {
            titles.add(getString(R.string.no_model));
        }
        modelList.setAdapter(list(titles));
        modelList.setOnItemSelectedListener(
                new AdapterView.OnItemSelectedListener() {
                    @Override
                    public void onItemSelected(AdapterView<?> list, View row, int at, long id) {
                        changed();
                    }

                    @Override
                    public void onNothingSelected(AdapterView<?> list) {
                        changed();
                    }
                });
    }

    private void fillProviders() {
        List<Object> titles = new ArrayList<Object>();
        for (String name : Providers.NAMES) {
            titles.add(Providers.describe(name, Build.VERSION.SDK_INT));
        }
        providerList.setAdapter(list(titles));
    }

    private ArrayAdapter<Object> list(List<Object> titles) {
        ArrayAdapter<Object> adapter =
                new ArrayAdapter<Object>(this, android.R.layout.simple_spinner_item, titles);
        adapter.setDropDownViewResource(android.R.layout.simple_spinner_dropdown_item);
        return adapter;
    }

    @Override
    public void changed() {
        Progress progress = work.progress();
        boolean busy = progress != null;
        boolean picture = work.source().isFile();
        if (opened != work.opened().size()) {
            fillModels();
            modelList.setSelection(models.size() - 1);
        }
        if (shown != work.version()) {
            showPictures(picture);
        }
        if (busy) {
            String said = progress.describe(System.nanoTime());
            compare.showProgress(progress.share(), said);
        } else {
            compare.showProgress(-1, "");
        }
        compare.setKeepScreenOn(busy);
        status.setText(words(picture));
        ((Button) findViewById(R.id.run)).setText(busy ? R.string.cancel : R.string.run);
        findViewById(R.id.run).setEnabled(busy || picture);
        findViewById(R.id.pick).setEnabled(!busy);
        findViewById(R.id.open_model).setEnabled(!busy);
        findViewById(R.id.save).setEnabled(!busy && work.scale() > 0);
        findViewById(R.id.share).setEnabled(!busy && work.scale() > 0);
        main.removeCallbacks(tick);
        if (busy) {
            main.postDelayed(tick, TICK_MS);
        }
    }

    private void showPictures(boolean picture) {
        shown = work.version();
        int scale = work.scale();
        try {
            Layer before = null;
            Layer after = null;
            if (picture) {
                before = new Layer(StoredPicture.open(work.source()), Math.max(1, scale));
                after = scale > 0 ? new Layer(StoredPicture.open(work.result()), 1) : null;
            }
            compare.show(before, after);
        } catch (RefusedException error) {
            work.say("refused: " + error.getMessage());
        }
    }

    private String words(boolean picture) {
        if (!work.message().isEmpty()) {
            return work.message();
        }
        int chosen = modelList.getSelectedItemPosition();
        if (!picture) {
            return getString(R.string.nothing);
        }
        return chosen >= 0 && chosen < models.size() ? models.get(chosen).card.describe() : "";
    }
}

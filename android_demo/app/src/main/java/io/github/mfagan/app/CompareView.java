package io.github.mfagan.app;

import android.content.Context;
import android.graphics.Canvas;
import android.graphics.Paint;
import android.graphics.RectF;
import android.os.Bundle;
import android.os.Handler;
import android.os.HandlerThread;
import android.os.Looper;
import android.util.AttributeSet;
import android.view.GestureDetector;
import android.view.MotionEvent;
import android.view.View;
import io.github.mfagan.core.Comparison;
import io.github.mfagan.core.Painter;
import io.github.mfagan.core.Scene;
import io.github.mfagan.core.Viewport;
import java.io.IOException;

/** Before and after, with a divider that is dragged, pinch to zoom, and how far the work is. */
public final class CompareView extends View implements Painter {
    private static final float REACH_DP = 28;
    private static final long STILL_MS = 120;

    private final Comparison comparison;
    private final Scene scene;
    private final Paint paint = new Paint(Paint.ANTI_ALIAS_FLAG | Paint.FILTER_BITMAP_FLAG);
    private final GestureDetector taps;
    private final Handler main = new Handler(Looper.getMainLooper());
    private HandlerThread thread;
    private Handler reader;
    private Layer before;
    private Layer after;
    private Canvas canvas;
    private float[] saved;
    private double share = -1;
    private String said = "";

    private final Runnable redraw =
            new Runnable() {
                @Override
                public void run() {
                    invalidate();
                }
            };
    private final Runnable lookCloser =
            new Runnable() {
                @Override
                public void run() {
                    readDetails();
                }
            };

    /** Makes it from a layout. */
    public CompareView(Context context, AttributeSet attributes) {
        super(context, attributes);
        float density = getResources().getDisplayMetrics().density;
        comparison = new Comparison(REACH_DP * density);
        scene = new Scene(comparison, density);
        taps =
                new GestureDetector(
                        context,
                        new GestureDetector.SimpleOnGestureListener() {
                            @Override
                            public boolean onDoubleTap(MotionEvent event) {
                                comparison.doubleTap(event.getX(), event.getY());
                                changed();
                                return true;
                            }
                        });
    }

    /** Shows pictures, or nothing; after is null where there is no result yet. */
    void show(Layer first, Layer second) {
        boolean same = first != null && before != null && first.width() == before.width()
                && first.height() == before.height();
        before = first;
        after = second;
        if (first != null && !same) {
            comparison.viewport.setPicture(first.width(), first.height());
            if (saved != null) {
                restore(saved);
            }
        }
        read(first, true, null);
        read(second, true, null);
        changed();
    }

    /** Shows how far the work is; a share below 0 where none is under way. */
    void showProgress(double done, String words) {
        share = done;
        said = words;
        invalidate();
    }

    /** Keeps what is looked at. */
    void save(Bundle state) {
        float[] place = comparison.viewport.save();
        state.putFloatArray("place", new float[] {
            place[0], place[1], place[2], comparison.divider()});
    }

    /** Looks at what was kept, as soon as the picture is there. */
    void restore(Bundle state) {
        saved = state.getFloatArray("place");
    }

    private void restore(float[] place) {
        comparison.viewport.restore(place);
        comparison.setDivider(place[3]);
        if (getWidth() > 0) {
            saved = null;
        }
    }

    @Override
    protected void onAttachedToWindow() {
        super.onAttachedToWindow();
        thread = new HandlerThread("pictures");
        thread.start();
        reader = new Handler(thread.getLooper());
        read(before, true, null);
        read(after, true, null);
    }

    @Override
    protected void onDetachedFromWindow() {
        super.onDetachedFromWindow();
        main.removeCallbacks(lookCloser);
        thread.quitSafely();
        reader = null;
    }

    @Override
    protected void onSizeChanged(int width, int height, int oldWidth, int oldHeight) {
        comparison.viewport.setView(width, height);
        if (saved != null && before != null) {
            restore(saved);
        }
        changed();
    }

    @Override
    public boolean onTouchEvent(MotionEvent event) {
        taps.onTouchEvent(event);
        int action = event.getActionMasked();
        boolean over = action == MotionEvent.ACTION_UP || action == MotionEvent.ACTION_CANCEL;
        int leaving = action == MotionEvent.ACTION_POINTER_UP ? event.getActionIndex() : -1;
        int count = over ? 0 : event.getPointerCount() - (leaving < 0 ? 0 : 1);
        float[] xs = new float[count];
        float[] ys = new float[count];
        for (int k = 0, finger = 0; finger < count; k++) {
            if (k != leaving) {
                xs[finger] = event.getX(k);
                ys[finger++] = event.getY(k);
            }
        }
        if (comparison.fingers(xs, ys)) {
            changed();
        }
        if (over) {
            performClick();
        }
        return true;
    }

    @Override
    public boolean performClick() {
        return super.performClick();
    }

    private void changed() {
        invalidate();
        main.removeCallbacks(lookCloser);
        main.postDelayed(lookCloser, STILL_MS);
    }

    private void readDetails() {
        Viewport v = comparison.viewport;
        RectF shown =
                new RectF(
                        v.toPictureX(0),
                        v.toPictureY(0),
                        v.toPictureX(v.viewWidth()),
                        v.toPictureY(v.viewHeight()));
        read(before, false, shown);
        read(after, false, shown);
    }

    private void read(final Layer layer, final boolean all, final RectF shown) {
        if (reader == null || layer == null) {
            return;
        }
        reader.post(
                new Runnable() {
                    @Override
                    public void run() {
                        try {
                            if (all) {
                                layer.readOverview();
                            } else {
                                layer.readDetail(shown);
                            }
                            main.post(redraw);
                        } catch (IOException error) {
                            refuse(layer, error.getMessage(), error);
                        } catch (OutOfMemoryError error) {
                            refuse(layer, "there is too little memory", error);
                        }
                    }
                });
    }

    private void refuse(final Layer layer, final String why, Throwable error) {
        Report.warn("a picture cannot be shown", error);
        main.post(
                new Runnable() {
                    @Override
                    public void run() {
                        if (layer == before || layer == after) { // not one of before
                            App.work(getContext()).say("failed: it cannot be shown: " + why);
                        }
                    }
                });
    }

    @Override
    protected void onDraw(Canvas given) {
        canvas = given;
        scene.draw(this, after != null, share, said);
    }

    @Override
    public void picture(int which, float[] from, float[] to) {
        Layer layer = which == BEFORE ? before : after;
        if (layer != null) {
            layer.draw(canvas, from, to, paint);
        }
    }

    @Override
    public void fill(int color, float left, float top, float right, float bottom) {
        paint.setColor(color);
        canvas.drawRect(left, top, right, bottom, paint);
        paint.setColor(0xff000000);
    }

    @Override
    public void circle(int color, float x, float y, float radius) {
        paint.setColor(color);
        canvas.drawCircle(x, y, radius, paint);
        paint.setColor(0xff000000);
    }

    @Override
    public void text(String text, int color, float x, float y, float size) {
        paint.setColor(color);
        paint.setTextSize(size);
        canvas.drawText(text, x, y, paint);
        paint.setColor(0xff000000);
    }

    @Override
    public float textWidth(String text, float size) {
        paint.setTextSize(size);
        return paint.measureText(text);
    }
}

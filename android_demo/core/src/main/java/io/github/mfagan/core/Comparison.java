package io.github.mfagan.core;

/**
 * What fingers do to a before/after view: drag the divider, pan, pinch to zoom, tap twice.
 *
 * <p>Android's view and the preview tell it the same: where all fingers are, after each event.
 */
public final class Comparison {
    private enum Doing {
        NOTHING,
        DIVIDING,
        MOVING
    }

    public final Viewport viewport = new Viewport();
    private final float reach;
    private float divider = 0.5f;
    private Doing doing = Doing.NOTHING;
    private float lastX;
    private float lastY;
    private float lastSpread;
    private int lastCount;

    /** Makes it; the divider is taken hold of within so many pixels of the view. */
    public Comparison(float reach) {
        this.reach = reach;
    }

    /** Returns the divider's place, pixels of the view from its left. */
    public float dividerX() {
        return divider * viewport.viewWidth();
    }

    /** Returns the divider's place as a share of the view's width, 0 to 1. */
    public float divider() {
        return divider;
    }

    /** Moves the divider to a share of the view's width, 0 to 1. */
    public void setDivider(float share) {
        divider = Math.min(Math.max(share, 0), 1);
    }

    /**
     * Takes where all fingers are now, pixels of the view.
     *
     * @return whether the view is to be drawn again
     */
    public boolean fingers(float[] xs, float[] ys) {
        int count = xs.length;
        float x = mean(xs);
        float y = mean(ys);
        float spread = count < 2 ? 0 : (float) Math.hypot(xs[0] - xs[1], ys[0] - ys[1]);
        boolean changed = false;
        if (count != lastCount) {
            begin(count, x);
        } else if (doing == Doing.DIVIDING) {
            setDivider((dividerX() + x - lastX) / viewport.viewWidth());
            changed = true;
        } else if (doing == Doing.MOVING) {
            viewport.pan(x - lastX, y - lastY);
            if (spread > 0 && lastSpread > 0) {
                viewport.zoomBy(spread / lastSpread, x, y);
            }
            changed = true;
        }
        lastCount = count;
        lastX = x;
        lastY = y;
        lastSpread = spread;
        return changed;
    }

    /** Shows the whole picture, or, where it is shown, each of its pixels as one of the view's. */
    public void doubleTap(float x, float y) {
        if (viewport.isWhole()) {
            viewport.zoomBy(Math.max(1 / viewport.zoom(), 2), x, y);
        } else {
            viewport.fit();
        }
    }

    private void begin(int count, float x) {
        if (count == 0) {
            doing = Doing.NOTHING;
        } else if (count == 1 && lastCount == 0 && Math.abs(x - dividerX()) <= reach) {
            doing = Doing.DIVIDING;
        } else {
            doing = Doing.MOVING;
        }
    }

    private static float mean(float[] values) {
        float sum = 0;
        for (float value : values) {
            sum += value;
        }
        return values.length == 0 ? 0 : sum / values.length;
    }
}

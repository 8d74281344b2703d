package io.github.mfagan.core;

/** Draws the before/after view: two pictures, a divider, what they are, and how far the work is. */
public final class Scene {
    private static final int BACKGROUND = 0xff101418;
    private static final int LINE = 0xffffffff;
    private static final int SHADE = 0xa0000000;
    private static final int WRITING = 0xffffffff;
    private static final int BAR = 0xff4fc3f7;
    private static final float LINE_WIDTH = 2;
    private static final float HANDLE = 18;
    private static final float LETTERS = 14;
    private static final float GAP = 8;

    private final Comparison comparison;
    private final float density;

    /** Makes it; density is pixels of the view per 1/160 inch. */
    public Scene(Comparison comparison, float density) {
        this.comparison = comparison;
        this.density = density;
    }

    /**
     * Draws the view.
     *
     * @param finished there is a result to compare with
     * @param share of the work that is done, 0 to 1, or below 0 where none is under way
     * @param said what is written beside the bar
     */
    public void draw(Painter painter, boolean finished, double share, String said) {
        Viewport viewport = comparison.viewport;
        float width = viewport.viewWidth();
        float height = viewport.viewHeight();
        painter.fill(BACKGROUND, 0, 0, width, height);
        float divider = finished ? comparison.dividerX() : width;
        part(painter, Painter.BEFORE, 0, divider);
        if (finished) {
            part(painter, Painter.AFTER, divider, width);
            drawDivider(painter, divider, height);
            label(painter, "before", GAP * density, true);
            label(painter, "after", width - GAP * density, false);
        }
        if (share >= 0) {
            drawProgress(painter, (float) Math.min(share, 1), said);
        }
    }

    /** Draws a picture between two columns of the view. */
    private void part(Painter painter, int which, float from, float to) {
        Viewport v = comparison.viewport;
        float left = Math.max(from, v.toViewX(0));
        float right = Math.min(to, v.toViewX(v.pictureWidth()));
        float top = Math.max(0, v.toViewY(0));
        float bottom = Math.min(v.viewHeight(), v.toViewY(v.pictureHeight()));
        if (left >= right || top >= bottom) {
            return;
        }
        float[] source = {
            v.toPictureX(left), v.toPictureY(top), v.toPictureX(right), v.toPictureY(bottom)
        };
        painter.picture(which, source, new float[] {left, top, right, bottom});
    }

    private void drawDivider(Painter painter, float x, float height) {
        float half = LINE_WIDTH * density / 2;
        painter.fill(LINE, x - half, 0, x + half, height);
        painter.circle(SHADE, x, height / 2, (HANDLE + 2) * density);
        painter.circle(LINE, x, height / 2, HANDLE * density);
        float size = LETTERS * density;
        String arrows = "< >";
        float y = height / 2 + size / 3;
        painter.text(arrows, BACKGROUND, x - painter.textWidth(arrows, size) / 2, y, size);
    }

    private void label(Painter painter, String text, float x, boolean fromLeft) {
        float size = LETTERS * density;
        float gap = GAP * density;
        float width = painter.textWidth(text, size);
        float left = fromLeft ? x : x - width - 2 * gap;
        painter.fill(SHADE, left, gap, left + width + 2 * gap, size + 3 * gap);
        painter.text(text, WRITING, left + gap, size + 1.8f * gap, size);
    }

    private void drawProgress(Painter painter, float share, String said) {
        Viewport viewport = comparison.viewport;
        float gap = GAP * density;
        float size = LETTERS * density;
        float width = viewport.viewWidth();
        float bottom = viewport.viewHeight();
        float top = bottom - size - 4 * gap;
        painter.fill(SHADE, 0, top, width, bottom);
        painter.text(said, WRITING, gap, top + size + gap, size);
        painter.fill(SHADE, gap, bottom - 2 * gap, width - gap, bottom - gap);
        painter.fill(BAR, gap, bottom - 2 * gap, gap + share * (width - 2 * gap), bottom - gap);
    }
}

// The page begins.
import { connectCamera } from "./camera.js";
import { connectControls, drawClasses } from "./controls.js";
import { draw, watchPicture } from "./drawing.js";
import { closeExplanations } from "./explaining.js";
import { connectExports } from "./exporting.js";
import { byId, settings, whenChanged } from "./state.js";

const NAMES = 12;
const { names } = settings;
byId("classes-known").textContent = `This model knows ${names.slice(0, NAMES).join(", ")}`
  + (names.length > NAMES ? ` and ${names.length - NAMES} more.` : ".");
whenChanged(draw);
whenChanged(drawClasses);
connectControls();
connectCamera();
connectExports();
closeExplanations();
watchPicture();

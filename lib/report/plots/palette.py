"""The colours of every picture, in PNG files and in report.html.

They are Okabe and Ito's (https://jfly.uni-koeln.de/color/), told apart by colour-blind eyes too.
Only those are taken that have a contrast of 3 : 1 and more on white and on the report's dark paper,
so that one drawing serves both; whatever is text is drawn in the colour of the text around it.
"""

TRAINING = "#D55E00"  # vermillion
VALIDATION = "#0072B2"  # blue
VALIDATION_TOP5 = "#009E73"  # bluish green
FAINT = "#7f858c"  # grey: what stands behind

RIGHT, WRONG = VALIDATION, TRAINING  # of the confusion matrix
FULL_OPACITY = 0.75  # of a cell: text upon it has a contrast of 4.5 : 1, dark or light

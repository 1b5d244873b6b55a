"""The report of one run: a page that needs nothing but a browser.

collect.py   listens to the run, again, and keeps what fits
lanes.py     events -> rows and marks of the picture
image_map.py a file -> what each of its clusters is, and what the guest's clusters are made of
page.py      all of that -> one HTML file, with report.css and report.js in it
write.py     the way through them
"""
